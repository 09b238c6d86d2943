"""requests over a unix socket: the client with which the project's goals are stated."""

from __future__ import annotations

import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

BASE = "http://sandboxd"
"""The address to put before a path; the host's name is never looked up."""


class _Connection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("sandboxd")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("sandboxd")
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path)


class _Adapter(HTTPAdapter):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = _Pool(path)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


def session(path: str) -> requests.Session:
    """A session whose requests to `BASE` go to the unix socket at `path`; keeps its connection."""
    made = requests.Session()
    made.trust_env = False  # else every request looks for proxies and .netrc
    made.mount(BASE, _Adapter(path))
    return made
