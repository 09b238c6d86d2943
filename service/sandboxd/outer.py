"""What every process that works on the state does first: log to stderr, enter its namespace."""

from __future__ import annotations

import logging
import os
import sys
import time

from sandboxd.errors import HostLacks
from sandboxd.linux import idmap

log = logging.getLogger("sandboxd")


def log_to_stderr() -> None:
    """One line for each record, in UTC."""
    logging.Formatter.converter = time.gmtime
    layout = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
    logging.basicConfig(stream=sys.stderr, format=layout, datefmt="%Y-%m-%dT%H:%M:%S")
    logging.getLogger("sandboxd").setLevel(logging.INFO)


def enter(kind: idmap.Kind | None = None) -> idmap.IdMap:
    """Into the outer user namespace with the widest map that works, or the one asked for.

    The process must have one thread only. Raises HostLacks.
    """
    ids = idmap.single() if kind == "single" else idmap.choose()
    if ids.kind == "subids" and (complaint := idmap.complaint_about(ids)):
        log.warning("%s: using a single-id map; see sandboxctl doctor", complaint)
        ids = idmap.single()
    try:
        idmap.enter_outer_namespace(ids)
    except OSError as error:
        raise HostLacks("enter a user namespace", str(error), "sandboxctl doctor") from None
    log.info("pid %d, id map %s of %d ids", os.getpid(), ids.kind, ids.size)
    return ids
