"""HTTP/1.1 on one unix socket: as much of it as a client of the service needs.

Why not `requests` or `http.client`: importing either takes longer than a whole `sandboxctl ps`
may, a call through a requests session costs some ten times one through this module, and attach,
exec and lease requests turn into raw streams, which neither offers.

A connection never outlives its process: a child made by fork drops the descriptors it inherited,
because the service takes the end of a connection as the end of its lease or of its command, and
an inherited descriptor would keep it open.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = 1 << 16
_HEAD_MAX = 1 << 16

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class ProtocolError(Exception):
    """The peer closed the connection half-way or does not speak HTTP/1.1."""


class Head(NamedTuple):
    """Status and header fields (names in lower case) of an answer."""

    status: int
    headers: dict[str, str]

    @property
    def closes(self) -> bool:
        """Whether the peer ends the connection after this answer."""
        return "close" in self.headers.get("connection", "").lower()


class Connection:
    """One connection; used by one thread at a time. Raises OSError and ProtocolError."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._deadline: float | None = None
        self._owner = os.getpid()
        self._received = b""
        _connections.add(self)

    def idle(self) -> bool:
        """Whether a request may be sent: it is open, ours, and the peer has not hung up."""
        if self.socket.fileno() < 0 or self._owner != os.getpid():
            return False
        try:
            self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def allow(self, seconds: float | None) -> None:
        """Let all reading from now on take this long, then raise TimeoutError; None: for ever."""
        if seconds is None and self._deadline is None:
            return
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.socket.settimeout(seconds)

    def close(self) -> None:
        """End the connection for the peer too, whoever else holds a copy of the descriptor."""
        if self._owner == os.getpid():
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.socket.close()

    def drop(self) -> None:
        """Close this process's descriptor only."""
        self.socket.close()

    def read_head(self) -> Head:
        """Wait for the status line and the header fields of the next answer."""
        while b"\r\n\r\n" not in self._received:
            if len(self._received) > _HEAD_MAX:
                raise ProtocolError("the answer's header has no end")
            self._receive()
        raw, _, self._received = self._received.partition(b"\r\n\r\n")
        return _parse_head(raw)

    def read_body(self, head: Head) -> bytes:
        """The whole body that belongs to `head`."""
        return b"".join(self.iterate_body(head))

    def iterate_body(self, head: Head) -> Iterator[bytes]:
        """The body in pieces, as they arrive; an event stream yields what is there at once."""
        length = _content_length(head)
        if length is not None:
            yield from self._fixed(length)
        elif head.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        else:
            yield from self.iterate_raw()

    def iterate_raw(self) -> Iterator[bytes]:
        """Everything until the peer closes its side."""
        while block := self.read_raw():
            yield block

    def read_line(self) -> bytes:
        """The next line of a raw stream, without its end."""
        while b"\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\n")
        return line

    def read_raw(self) -> bytes:
        """The next bytes as they come; b"" once the peer has closed its side."""
        if self._received:
            block, self._received = self._received, b""
            return block
        return self._receive_some()

    @property
    def buffered(self) -> bool:
        """Whether `read_raw` would return without waiting for the socket."""
        return bool(self._received)

    def has_answer(self) -> bool:
        """Whether something can be read at once."""
        try:
            return self.buffered or bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _fixed(self, length: int) -> Iterator[bytes]:
        while length:
            block = self.read_raw()
            if not block:
                raise ProtocolError("the connection ended before the answer did")
            self._received = block[length:]
            block = block[:length]
            length -= len(block)
            yield block

    def _chunked(self) -> Iterator[bytes]:
        """RFC 9112, section 7.1; trailer fields are read over."""
        while size := _chunk_size(self._line()):
            yield from self._fixed(size)
            self._line()
        while self._line():
            pass

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            if len(self._received) > _HEAD_MAX:
                raise ProtocolError("a line of the answer has no end")
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _receive(self) -> None:
        """Wait for more bytes, which must come."""
        block = self._receive_some()
        if not block:
            raise ProtocolError("the connection ended before the answer did")
        self._received = self._received + block if self._received else block

    def _receive_some(self) -> bytes:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time allowed is over")
            self.socket.settimeout(left)
        try:
            return self.socket.recv(_BLOCK)
        except ConnectionResetError:
            return b""  # the peer died with something of ours unread: unix(7)


def _parse_head(raw: bytes) -> Head:
    status_line, *lines = raw.decode("latin-1").split("\r\n")
    protocol, _, rest = status_line.partition(" ")
    code = rest[:3]
    if not protocol.startswith("HTTP/1.") or not code.isdigit():
        raise ProtocolError(f"the answer is not HTTP/1.1: {status_line[:60]!r}")
    fields = (line.partition(":") for line in lines)
    return Head(int(code), {name.lower(): value.strip() for name, _, value in fields})


def _content_length(head: Head) -> int | None:
    """Bytes of the body; None where another rule of RFC 9112, section 6.3 finds its end."""
    if head.status in (204, 304) or head.status < 200:
        return 0
    text = head.headers.get("content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise ProtocolError(f"the answer's length is not a number: {text[:60]!r}")
    return int(text)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise ProtocolError(f"the answer's chunk has no size: {line[:60]!r}") from None


def _drop_inherited_in_child() -> None:
    for connection in list(_connections):
        connection.drop()


os.register_at_fork(after_in_child=_drop_inherited_in_child)
