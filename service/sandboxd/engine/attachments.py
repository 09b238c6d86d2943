"""Clients attached to a program's streams, and the outlet that feeds them and the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection

from sandboxd.engine.logs import Log
from sandboxd.engine.stdin import Stdin

QUEUE = 1 << 20
"""Bytes that wait for one client before the program is made to wait."""


class Outlet:
    """Where a program's output goes: the log, if there is one, and every attached client."""

    def __init__(self, log: Log | None = None) -> None:
        self._log = log
        self._attachments: list[Attachment] = []
        self._resume: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether some client is so far behind that the program should wait."""
        return any(attachment.full for attachment in self._attachments)

    def on_space(self, resume: Callable[[], None] | None) -> None:
        """Call `resume` each time that the outlet stops being full; None: nobody any more."""
        self._resume = resume

    def put(self, stream: int, data: bytes) -> None:
        if self._log:
            self._log.append(stream, data)
        for attachment in self._attachments:
            attachment.put(stream, data)

    def end(self) -> None:
        """The program is over: every client gets what is queued and then its end of file."""
        attachments, self._attachments = self._attachments, []
        for attachment in attachments:
            attachment.end()

    def add(self, attachment: Attachment) -> None:
        self._attachments.append(attachment)

    def drop(self, attachment: Attachment) -> None:
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        self.relieved()

    def relieved(self) -> None:
        if self._resume and not self.full:
            self._resume()


class Attachment:
    """One attached client: iterate for (stream, bytes), write for the program's standard input.

    The iteration ends when the program's output is at its end and has all been taken.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        tty: bool,
        streams: Collection[int] = (1, 2),
        stdin: Stdin | None = None,
        closes_stdin: bool = True,
        history: AsyncIterator[tuple[int, bytes]] | None = None,
        live: bool = True,
    ) -> None:
        self.tty = tty
        self._outlet = outlet
        self._streams = streams
        self._stdin = stdin
        self._closes_stdin = closes_stdin
        self._history = history
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._ended = not live
        self._more: asyncio.Future[None] | None = None
        if live:
            outlet.add(self)

    @property
    def full(self) -> bool:
        return self._queued >= QUEUE

    async def write(self, data: bytes) -> None:
        """Pass bytes to the program, waiting for its start and for its reading."""
        if self._stdin:
            await self._stdin.write(data)

    async def close_stdin(self) -> None:
        """End of file for the program, unless its standard input outlives its clients."""
        if self._stdin and self._closes_stdin:
            await self._stdin.close()

    def detach(self) -> None:
        """Leave: the program goes on, the iteration ends."""
        self._outlet.drop(self)
        self.end()

    def put(self, stream: int, data: bytes) -> None:
        if stream in self._streams:
            self._queue.append((stream, data))
            self._queued += len(data)
            self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._history:
            async for piece in self._history:
                yield piece
        while True:
            while self._queue:
                yield self._take()
            if self._ended:
                return
            self._more = asyncio.get_running_loop().create_future()
            await self._more

    def _take(self) -> tuple[int, bytes]:
        piece = self._queue.popleft()
        before, self._queued = self._queued, self._queued - len(piece[1])
        if before >= QUEUE > self._queued:
            self._outlet.relieved()
        return piece

    def _wake(self) -> None:
        if self._more and not self._more.done():
            self._more.set_result(None)
