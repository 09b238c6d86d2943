"""What a container's programs write and read: frames of a log, and attached raw streams.

Without a terminal, standard output and error share one stream as frames (Engine API, "Stream
format"): one byte for the stream (1 or 2), three zeros, the payload's length as a big-endian
32-bit number, the payload. With a terminal there is one stream of raw bytes, told as stream 1.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from pytest_sandbox.client.connection import Connection, Head
from pytest_sandbox.client.transport import Stream

STDOUT, STDERR = 1, 2
_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_HEADER = 8
_Item = TypeVar("_Item")
_BLOCK = 1 << 16


def is_multiplexed(head: Head) -> bool:
    """Whether the stream under this head consists of frames."""
    return head.headers.get("content-type", "").startswith(_MULTIPLEXED)


def split_frames(pieces: Iterable[bytes], multiplexed: bool) -> Iterator[tuple[int, bytes]]:
    """(stream, bytes) for everything in `pieces`, as soon as it is there.

    A frame that is cut off by the stream's end yields what there is of it.
    """
    if not multiplexed:
        yield from ((STDOUT, piece) for piece in pieces)
        return
    frames = Frames()
    for piece in pieces:
        yield from frames.feed(piece)


class Frames:
    """Takes frames apart that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = STDOUT
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The (stream, bytes) that `data` completes; parts of a long frame come as they arrive."""
        position = 0
        while position < len(data):
            if not self._missing:
                taken = data[position : position + _HEADER - len(self._header)]
                self._header += taken
                position += len(taken)
                if len(self._header) == _HEADER:
                    self._stream = STDERR if self._header[0] == STDERR else STDOUT
                    self._missing = int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            payload = data[position : position + self._missing]
            position += len(payload)
            self._missing -= len(payload)
            yield self._stream, payload


class Feed(Iterator[_Item]):
    """Things that arrive one by one; `close`, or the end of a `with` block, hangs up."""

    def __init__(self, stream: Stream, items: Iterator[_Item]) -> None:
        self._stream = stream
        self._items = items

    def __next__(self) -> _Item:
        return next(self._items)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Attachment:
    """A raw stream to a program: its output comes out, what is sent is its standard input."""

    def __init__(self, head: Head, connection: Connection) -> None:
        self.multiplexed = is_multiplexed(head)
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.socket.fileno()

    def communicate(self, stdin: bytes, timeout: float | None) -> tuple[bytes, bytes, bool]:
        """Send `stdin` and its end; (stdout, stderr, whether `timeout` seconds were too few)."""
        output: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
        timed_out = False
        try:
            for stream, data in self.exchange(stdin, timeout=timeout):
                output[stream].append(data)
        except TimeoutError:
            timed_out = True
        return b"".join(output[STDOUT]), b"".join(output[STDERR]), timed_out

    def exchange(
        self, stdin: bytes = b"", source: int | None = None, timeout: float | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """(stream, bytes) as the program writes, while its input goes out as fast as it reads.

        The input is `stdin`, then what the descriptor `source` gives until its end. Raises
        TimeoutError after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return split_frames(self._exchange(memoryview(stdin), source, deadline), self.multiplexed)

    def _exchange(
        self, unsent: memoryview, source: int | None, deadline: float | None
    ) -> Iterator[bytes]:
        while unsent or source is not None:
            poll = select.poll()
            poll.register(self, select.POLLIN | (select.POLLOUT if unsent else 0))
            if source is not None and not unsent:
                poll.register(source, select.POLLIN)
            ready = self._ready(poll, deadline)
            if ready.get(self.fileno(), 0) & select.POLLOUT:
                unsent = unsent[self._send_some(unsent) :]
            if source in ready and not (unsent := memoryview(_read(source))):
                source = None
            if self._connection.buffered or ready.get(self.fileno(), 0) & ~select.POLLOUT:
                if not (piece := self._connection.read_raw()):
                    return
                yield piece
        self._close_stdin()
        self._connection.allow(_left(deadline))
        yield from self._connection.iterate_raw()

    def _ready(self, poll: select.poll, deadline: float | None) -> dict[int, int]:
        """Events by descriptor, once there are any; none when there is output in the buffer."""
        left = 0.0 if self._connection.buffered else _left(deadline)
        ready = dict(poll.poll(None if left is None else left * 1000))
        if not ready and not self._connection.buffered:
            raise TimeoutError("the program took too long")
        return ready

    def _send_some(self, data: memoryview) -> int:
        """Bytes that were taken; a program that no longer reads takes everything."""
        try:
            return self._connection.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _close_stdin(self) -> None:
        """Let the program read the end of its input; its output still comes."""
        try:
            self._connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the program and its stream have ended already

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)


def _read(source: int) -> bytes:
    """The next bytes of a descriptor; b"" at its end, and for one that was closed."""
    try:
        return os.read(source, _BLOCK)
    except OSError:
        return b""
