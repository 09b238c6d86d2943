"""The writing end of a program's standard input."""

from __future__ import annotations

import asyncio
import os


class Stdin:
    """Clients may write before there is a program: their bytes wait until `connect`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._owned = False
        self._abandoned = False
        self._changed: asyncio.Future[None] = self._loop.create_future()

    def connect(self, fd: int, *, owned: bool = True) -> None:
        """The program reads from the other end of `fd`, which is closed at its end if `owned`."""
        os.set_blocking(fd, False)
        self._fd, self._owned = fd, owned
        self._notify()

    def disconnect(self) -> None:
        """End of file for the program, or the program is gone: the next one connects anew."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            if self._owned:
                os.close(self._fd)
        self._fd = -1
        self._notify()

    def abandon(self) -> None:
        """There will be no program any more: whoever waits goes on, and what is written is lost."""
        self._abandoned = True
        self.disconnect()

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for the program to read; dropped once nobody reads any more."""
        await self._connected()
        fd = self._fd
        while data and fd >= 0 and self._fd == fd:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                return

    async def close(self) -> None:
        """End of file as soon as there is a program to see it. A terminal has none to send."""
        await self._connected()
        if self._owned:
            self.disconnect()

    async def _connected(self) -> None:
        while self._fd < 0 and not self._abandoned:
            await asyncio.wait([self._changed])

    async def _writable(self) -> None:
        fd, changed = self._fd, self._changed
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(fd, lambda: None if writable.done() else writable.set_result(None))
        try:
            await asyncio.wait([writable, changed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._fd == fd:
                self._loop.remove_writer(fd)

    def _notify(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)
        self._changed = self._loop.create_future()
