"""Requests to the service over kept-alive connections: the client's only seam for I/O.

`Transport.request` is one call and its whole answer, `stream` an answer that is read as it comes,
`hijack` a call that turns the connection into a raw byte stream. Each raises an error of
`pytest_sandbox.errors` for an answer of 400 or more, and ServiceUnavailable when the service dies.
Threads may share a transport: a connection belongs to one call until its answer is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pytest_sandbox.client.connection import Connection, Head, ProtocolError

if TYPE_CHECKING:
    from pytest_sandbox.errors import SandboxError

_IDLE_MAX = 8
"""Connections kept for later calls; more are made as threads need them and closed afterwards."""


class Request(NamedTuple):
    """One call. An iterable body is sent in chunks; `timeout` (seconds) covers the whole answer."""

    method: str
    target: str
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = {}
    timeout: float | None = None

    def head(self) -> bytes:
        """The request line and the header fields, as they are sent."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: sandboxd"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if not isinstance(self.body, bytes):
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


class Answer(NamedTuple):
    """A whole answer of less than 400."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class Stream:
    """An answer's body as it comes; `close`, or the end of a `with` block, hangs up."""

    def __init__(self, head: Head, connection: Connection, pieces: Iterator[bytes]) -> None:
        self.head = head
        self._connection = connection
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Transport:
    """Calls to the service that `connect` returns connected sockets to; `address` names it."""

    def __init__(self, connect: Callable[[], socket], address: str) -> None:
        self.address = address
        self._connect = connect
        self._idle: list[Connection] = []
        self._closed = False

    def request(self, request: Request) -> Answer:
        """One call. TimedOut when the answer is not complete after the request's timeout."""
        connection, head = self._send(request)
        body = self._rest(request, connection, head)
        return Answer(head.status, head.headers, body)

    def stream(self, request: Request) -> Stream:
        """A call whose answer's body is iterated as it comes."""
        connection, head = self._send(request)
        if head.status >= 400:
            self._rest(request, connection, head)
        return Stream(head, connection, self._iterate(request, connection, head))

    def hijack(self, request: Request) -> tuple[Head, Connection]:
        """Ask for an upgrade; the caller owns the connection, a raw stream from now on."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp", **request.headers}
        connection, head = self._send(request._replace(headers=upgrade))
        if head.status >= 400:
            self._rest(request, connection, head)
        if head.status != 101:
            connection.close()
            raise self.lost(request, f"status {head.status} instead of an upgrade")
        return head, connection

    def close(self) -> None:
        """Close the idle connections; later calls raise RuntimeError."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _send(self, request: Request) -> tuple[Connection, Head]:
        """Send the request and wait for the answer's head."""
        if self._closed:
            raise RuntimeError(f"{request.method} {request.target}: this client is closed")
        data = request.head() + (request.body if isinstance(request.body, bytes) else b"")
        connection, sent = self._begin(data)
        with self._translated(request, connection):
            connection.allow(request.timeout)
            _send_rest(connection, data[sent:], request.body)
            return connection, connection.read_head()

    def _begin(self, data: bytes) -> tuple[Connection, int]:
        """Send as much as goes at once; the connection, and how many bytes it took.

        The service may be closing an idle connection at this very moment: when not one byte of the
        request could be sent, a new connection gets it. One that already holds an answer is kept.
        """
        connection = self._take()
        try:
            return connection, connection.socket.send(data)
        except (BrokenPipeError, ConnectionResetError):
            if connection.has_answer():
                return connection, 0
            connection.drop()
            return Connection(self._connect()), 0

    def _rest(self, request: Request, connection: Connection, head: Head) -> bytes:
        """The answer's body; the connection then serves other calls. Raises a refusal."""
        with self._translated(request, connection):
            body = b"" if request.method == "HEAD" else connection.read_body(head)
            connection.allow(None)
        done_with = self._closed or head.closes or connection.buffered
        if done_with or len(self._idle) >= _IDLE_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        if head.status >= 400:
            from pytest_sandbox.errors import error_from_answer

            raise error_from_answer(head.status, body)
        return body

    def _iterate(self, request: Request, connection: Connection, head: Head) -> Iterator[bytes]:
        pieces = connection.iterate_body(head)
        while True:
            with self._translated(request, connection):
                piece = next(pieces, b"")
            if not piece:
                return
            yield piece

    def _take(self) -> Connection:
        """An idle connection that still lives, else a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.idle():
                return connection
            connection.drop()
        return Connection(self._connect())

    @contextmanager
    def _translated(self, request: Request, connection: Connection) -> Iterator[None]:
        """Close the connection when anything goes wrong on it, and raise our errors for it."""
        try:
            yield
        except TimeoutError as error:
            from pytest_sandbox.errors import TimedOut

            connection.close()
            what = f"{request.method} {request.target.partition('?')[0]}"
            raise TimedOut(what, f"no answer after {request.timeout} s") from error
        except (OSError, ProtocolError) as error:
            connection.close()
            raise self.lost(request, str(error)) from error
        except BaseException:
            connection.close()
            raise

    def lost(self, request: Request, why: str) -> SandboxError:
        """The error for a service that went away during a request."""
        from pytest_sandbox.errors import ServiceUnavailable

        return ServiceUnavailable(
            f"the sandbox service at {self.address}",
            f"it went away during {request.method} {request.target.partition('?')[0]}: {why}",
            "sandboxctl service start; sandboxctl service logs shows what happened",
        )


def _send_rest(connection: Connection, rest: bytes, body: bytes | Iterable[bytes]) -> None:
    """Send what is left of a request; a service that refuses half-way has its answer read."""
    try:
        if rest:
            connection.socket.sendall(rest)
        if not isinstance(body, bytes):
            for chunk in filter(None, body):
                connection.socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            connection.socket.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        if not connection.has_answer():
            raise
