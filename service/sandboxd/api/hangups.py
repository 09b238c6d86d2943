"""Tells a client that has left from one that has only closed its sending side.

The docker CLI shuts its sending side down as soon as it has no more standard input, and still
reads. asyncio stops watching a socket after its end of file, so the real end would go unnoticed
until the next write: an attachment to a quiet container would outlive its client. epoll(7) reports
EPOLLHUP once both directions are closed, whatever events were asked for.
"""

from __future__ import annotations

import asyncio
import select
from typing import Self

_HANGUP = select.POLLHUP | select.POLLERR


def has_hung_up(fd: int) -> bool:
    """Whether the peer has closed both directions of this socket, now."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & _HANGUP for _, events in poll.poll(0))


class Hangups:
    """Aborts a transport when its peer has closed the connection for good."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, asyncio.Transport] = {}
        loop.add_reader(self._epoll.fileno(), self._report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, fd: int, transport: asyncio.Transport) -> None:
        """Watch a socket that has reached its end of file; `forget` it before it is closed."""
        if fd not in self._watched:
            self._epoll.register(fd, 0)
        self._watched[fd] = transport

    def forget(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _report(self) -> None:
        for fd, _events in self._epoll.poll(0):
            transport = self._watched.get(fd)
            self.forget(fd)
            if transport is not None:
                transport.abort()
