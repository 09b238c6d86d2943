"""Where the socket and the state live. Both sides of the socket agree on it through this module.

Settled names: `$SANDBOX_HOST` (`unix://PATH`), else `$XDG_RUNTIME_DIR/sandboxd/docker.sock`, else
`/tmp/sandboxd-UID/docker.sock`; `$SANDBOX_ROOT`, else `$XDG_DATA_HOME/sandboxd`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from sandboxd.errors import BadRequest, Forbidden

SUN_PATH_MAX = 107
"""Bytes of a unix socket's path, terminating NUL left out: unix(7)."""


def socket_path(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """The API socket of this user. Raises BadRequest where SANDBOX_HOST is no unix socket."""
    uid = os.getuid() if uid is None else uid
    if host := environ.get("SANDBOX_HOST"):
        scheme, _, path = host.partition("://")
        if scheme != "unix" or not path.startswith("/"):
            why = "only unix:///absolute/path is served"
            raise BadRequest(f"SANDBOX_HOST={host}", why, "unset SANDBOX_HOST")
        return Path(path)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "sandboxd" / "docker.sock"
    return Path(f"/tmp/sandboxd-{uid}") / "docker.sock"


def state_root(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory for images, volumes, snapshots and metadata of this user."""
    if root := environ.get("SANDBOX_ROOT"):
        return Path(root).absolute()
    if data := environ.get("XDG_DATA_HOME"):
        return Path(data) / "sandboxd"
    return Path(environ.get("HOME") or os.path.expanduser("~")) / ".local" / "share" / "sandboxd"


def private_directory(path: Path, uid: int | None = None) -> Path:
    """Make `path` with mode 0700, or check that it is a directory of ours that nobody else enters.

    Raises Forbidden when another user owns it or when group or others may enter it: whoever can
    place the socket's directory can pose as the service.
    """
    uid = os.getuid() if uid is None else uid
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Forbidden(f"{path}", "it is not a directory", f"rm {path}")
    if found.st_uid != uid:
        why = f"it belongs to user id {found.st_uid}, not to {uid}"
        raise Forbidden(f"{path}", why, "set SANDBOX_HOST=unix:///a/directory/of/yours/docker.sock")
    if stat.S_IMODE(found.st_mode) & 0o077:
        why = f"its mode {stat.S_IMODE(found.st_mode):04o} lets others in"
        raise Forbidden(f"{path}", why, f"chmod 700 {path}")
    return path
