"""Connections taken over for a raw two-way stream: attach, exec and leases.

What the clients force here (recorded against dockerd 20.10 and 26.1):

- Go clients take nothing but `101 UPGRADED`; without an Upgrade header it is `200 OK` and raw
  bytes until the connection closes.
- The CLI half-closes at once when it has no standard input, and still reads.
- docker-py reads the head through a buffer which it then drops: whatever arrives together with
  the head is lost. So nothing is sent until the peer has read the head.
- A unix socket closed with unread data resets the peer's connection: unix(7), ECONNRESET. So what
  the client still sends is read, and dropped, until it closes too.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxd.api.connection import connection_of
from sandboxd.api.replies import FRAME_HEADERS

if TYPE_CHECKING:
    from sandboxd.api.call import Call

_READ_AHEAD = 256 << 10
_HEAD_SECONDS = 1.0
_LINGER_SECONDS = 1.0
_EAGER_CHECKS = 32
_CHECK_INTERVAL = 0.001


class Stream(asyncio.Protocol):
    """The raw stream of one connection, with back-pressure both ways.

    Clients send only once they have the head (RFC 9110, 7.8): what came before it is not kept.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._connection = connection_of(request)
        assert request.transport is not None
        self._transport = request.transport
        self._received: deque[bytes] = deque()
        self._pending = 0
        self._ended = self._connection.half_closed
        self._discarding = False
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def read(self) -> bytes:
        """The next bytes from the client; empty once it has closed its sending side."""
        while not self._received:
            if self._ended:
                return b""
            self._arrival.clear()
            await self._arrival.wait()
        data = self._received.popleft()
        self._pending -= len(data)
        if self._pending < _READ_AHEAD:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the client is slow. Raises ConnectionResetError when it has left."""
        if self._lost.is_set():
            raise ConnectionResetError("the client has left")
        self._transport.write(data)
        await self._writable.wait()

    async def write_head(self, head: bytes) -> None:
        """Send the head, and wait until the peer has read it (bounded)."""
        await self.write(head)
        sock = self._transport.get_extra_info("socket")
        deadline = asyncio.get_running_loop().time() + _HEAD_SECONDS
        checks = 0
        while not self._lost.is_set() and self._unread_by_peer(sock.fileno()):
            if asyncio.get_running_loop().time() > deadline:
                return
            checks += 1
            await asyncio.sleep(0 if checks < _EAGER_CHECKS else _CHECK_INTERVAL)

    async def finish(self) -> None:
        """Close: the rest is sent, then what the client still sends is dropped until it closes."""
        self._discarding = True
        self._received.clear()
        self._pending = 0
        self._transport.resume_reading()
        if not self._lost.is_set():
            self._transport.write_eof()
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                pass
        self._transport.close()

    def _unread_by_peer(self, fd: int) -> bool:
        if self._transport.get_write_buffer_size():
            return True
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ has the same number
        return bool(struct.unpack("i", answer)[0])

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._received.append(data)
        self._pending += len(data)
        if self._pending >= _READ_AHEAD:
            self._transport.pause_reading()
        self._arrival.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._arrival.set()
        return self._connection.keep_open_for_answers()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost.set()
        self._arrival.set()
        self._writable.set()
        # aiohttp's own protocol cancels the handler and forgets the connection.
        self._connection.connection_lost(exc)


class Taken(web.StreamResponse):
    """What a handler returns whose connection it has used up: there is no answer left to send."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


@asynccontextmanager
async def hijacked(call: Call, content_type: str) -> AsyncIterator[Stream]:
    """Take the connection over: the head is sent and read when this enters, all closed when it
    leaves. The handler then returns `Taken()`."""
    call.mark_begun()
    stream = Stream(call.request)
    await stream.write_head(_head(call.request, content_type))
    try:
        yield stream
    finally:
        await stream.finish()


def _head(request: web.BaseRequest, content_type: str) -> bytes:
    if request.headers.get("Upgrade"):
        lines = ["HTTP/1.1 101 UPGRADED", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", "Connection: close"]
    lines.append(f"Content-Type: {content_type}")
    lines += (f"{name}: {value}" for name, value in FRAME_HEADERS.items())
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
