"""A process of a container, as the service holds it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import cached_property

from sandboxd.linux import pidfd

Stdio = tuple[int, int, int]
"""Descriptors of a process's standard input, output and error; they stay the caller's."""


class Running:
    """A process of a container: its first one or an exec."""

    def __init__(self, token: int, descriptor: int, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self.pidfd = descriptor
        self.pty: int | None = None
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.exit_signal = 0
        self.token = token
        self.control = control
        self._heard = False
        self._callbacks: list[Callable[[int], None]] = []

    @cached_property
    def pid(self) -> int:
        """As the service sees it; -1 if it was first asked for after the end."""
        return pidfd.pid_of(self.pidfd)

    def hear(self, callback: Callable[[Running], None]) -> None:
        """Call `callback` when the control socket turns readable, until `deafen`."""
        self._heard = True
        self._loop.add_reader(self.control, callback, self)

    def deafen(self) -> None:
        if self._heard:
            self._heard = False
            self._loop.remove_reader(self.control)

    def when_ended(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with the exit code, a turn of the event loop before `exited` would."""
        if self.exited.done():
            self._loop.call_soon(callback, self.exited.result())
        else:
            self._callbacks.append(callback)

    def kill(self, signal: int) -> None:
        """pidfd_send_signal(2). Raises ProcessLookupError when the process is gone."""
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, "the process is gone, and its descriptor too")
        pidfd.pidfd_send_signal(self.pidfd, signal)

    def close(self) -> None:
        """Give back the descriptors; the process itself is not touched."""
        self.deafen()
        self.control.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def finish(self, code: int) -> None:
        """Record the end that the fork server reported: an exit code, or minus a signal."""
        if self.exited.done():
            return
        self.exit_signal = -code if code < 0 else 0
        self.exited.set_result(code if code >= 0 else 128 - code)
        for callback in self._callbacks:
            callback(self.exited.result())
