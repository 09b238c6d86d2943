"""Leases: what a client makes is gone as soon as the client is, however it ends.

A lease is an open connection to the service. Whatever was made under it is removed when that
connection ends, and the kernel ends it with the process, kill -9 included.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from urllib.parse import quote

from pytest_sandbox.client.connection import Connection, ProtocolError
from pytest_sandbox.client.transport import Request, Transport

HEADER = "X-Sandbox-Lease"


class Lease:
    """A lease that is opened when its id is first needed.

    It is opened anew when the service went away meanwhile (what the old one owned is gone with
    it), and in a child made by fork, which owns nothing of its parent's.
    """

    def __init__(self, transport: Transport, label: str = "") -> None:
        self._transport = transport
        self._label = label or os.path.basename(sys.argv[0]) or "python"
        self._lock = threading.Lock()
        self._held: tuple[str, Connection] | None = None

    @property
    def id(self) -> str:
        """The id for the lease header; opens the lease if need be. Raises ServiceUnavailable."""
        with self._lock:
            if self._held is None or not self._held[1].idle():
                self._held = self._open()
            return self._held[0]

    def close(self) -> None:
        """Give the lease back: the service removes everything made under it."""
        with self._lock:
            if self._held is not None:
                self._held[1].close()
                self._held = None

    def _open(self) -> tuple[str, Connection]:
        if self._held is not None:
            self._held[1].drop()
        label = quote(f"{self._label} (pid {os.getpid()})", safe="")
        request = Request("POST", f"/sandbox/leases?label={label}")
        _, connection = self._transport.hijack(request)
        try:
            return str(json.loads(connection.read_line())["Id"]), connection
        except (OSError, ProtocolError) as error:
            connection.close()
            raise self._transport.lost(request, str(error)) from error
