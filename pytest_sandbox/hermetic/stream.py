"""What a test's process tells pytest and is told: pickled messages on a stream. PYTEST_DONT_REWRITE

A process that the test left behind may hold the other end open, so the end of the stream says
nothing: `Incoming` stops waiting when somebody else, the zygote, tells that the process has ended.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

_LENGTH: Final = struct.Struct("=I")
_BLOCK: Final = 1 << 16


def send(end: socket.socket, message: tuple[Any, ...]) -> None:
    """Send one message. Raises OSError when nobody reads it, and what pickling it raises."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    end.sendall(_LENGTH.pack(len(body)) + body)


class Incoming:
    """The messages that arrive at one end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._bytes = bytearray()
        self._over = False

    def receive(self) -> tuple[Any, ...] | None:
        """Wait for the next message; None when the stream has ended."""
        while (message := self._complete()) is None and self._read(0):
            pass
        return message

    def next_or(self, other: int, when_other: Callable[[], bool]) -> tuple[Any, ...] | None:
        """The next message; None when there will be none.

        While none is complete, wait for the descriptor `other` too, and call `when_other` when it
        is readable: after it has returned True, only what has arrived already is returned.
        """
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        poll.register(other, select.POLLIN)
        while (message := self._complete()) is None:
            ready = dict(poll.poll())
            if self._end.fileno() in ready:
                if not self._read(0):
                    poll.unregister(self._end)
            elif other in ready and when_other():
                while self._read(socket.MSG_DONTWAIT):
                    pass
                return self._complete()
        return message

    def _complete(self) -> tuple[Any, ...] | None:
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        message: tuple[Any, ...] = pickle.loads(memoryview(self._bytes)[_LENGTH.size : end])
        del self._bytes[:end]
        return message

    def _read(self, flags: int) -> bool:
        if self._over:
            return False
        try:
            block = self._end.recv(_BLOCK, flags)
        except BlockingIOError:
            return False
        except OSError:
            block = b""
        self._over = not block
        self._bytes += block
        return bool(block)
