"""A process of a container, as the service holds it."""

from __future__ import annotations

import asyncio
import os
import socket

from sandboxd.linux import pidfd


class Running:
    """A process of a container: its first one or an exec."""

    def __init__(self, token: int, descriptor: int, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.pidfd = descriptor
        self.pid = pidfd.pid_of(descriptor)
        self.pty: int | None = None
        self.exited: asyncio.Future[int] = loop.create_future()
        self.exit_signal = 0
        self.token = token
        self.control = control

    def kill(self, signal: int) -> None:
        """pidfd_send_signal(2). Raises ProcessLookupError when the process is gone."""
        pidfd.pidfd_send_signal(self.pidfd, signal)

    def close(self) -> None:
        """Give back the descriptors; the process itself is not touched."""
        self.control.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def finish(self, code: int) -> None:
        """Record the end that the fork server reported: an exit code, or minus a signal."""
        self.exit_signal = -code if code < 0 else 0
        if not self.exited.done():
            self.exited.set_result(code if code >= 0 else 128 - code)
