"""A started process of a container together with its streams: the first one, or an exec."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.stdin import Stdin
from sandboxd.engine.streams import Output, Stdio, resize
from sandboxd.launcher.client import Running

Launch = Callable[[tuple[int, int, int]], Awaitable[Running]]
"""Starts the process on three descriptors, which stay the caller's."""


class Program:
    """Owns the process's pidfd and our ends of its streams until `finish`."""

    def __init__(
        self, running: Running, output: Output, stdin: Stdin | None, terminal: int
    ) -> None:
        self.running = running
        self._output = output
        self._stdin = stdin
        self._terminal = terminal

    @classmethod
    async def start(
        cls,
        launch: Launch,
        outlet: Outlet,
        *,
        stdin: Stdin | None = None,
        tty: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Program:
        """Start it; nothing is read before `watch`. Streams that are not wanted are /dev/null.

        Raises what `launch` raises, and OSError without descriptors; then nothing is left open.
        """
        piped = not tty
        stdio = Stdio.open(
            stdin=piped and stdin is not None, stdout=piped and stdout, stderr=piped and stderr
        )
        try:
            running = await launch(stdio.child)
        except BaseException:
            stdio.close_ours()
            raise
        finally:
            stdio.close_child()
        output = Output(outlet)
        output.add(1, stdio.stdout)
        output.add(2, stdio.stderr)
        terminal = -1
        if running.pty is not None:
            output.add(1, running.pty)
            # Its own descriptor: the output closes the other as soon as nobody holds the slave.
            terminal = os.dup(running.pty)
        if stdin:
            stdin.connect(stdio.stdin if piped else terminal, owned=piped)
        return cls(running, output, stdin, terminal)

    def watch(self) -> None:
        """From now on pass on what the program writes as it comes; nothing once it is over."""
        if self.running.pidfd >= 0:
            self._output.watch()

    def kill(self, signal: int) -> bool:
        """Send a signal by pidfd; False when the process is gone."""
        try:
            self.running.kill(signal)
        except ProcessLookupError:
            return False
        return True

    def resize(self, rows: int, cols: int) -> None:
        """Set the terminal's size; without a terminal nothing happens."""
        if self._terminal >= 0:
            resize(self._terminal, rows, cols)

    def drained(self) -> bool:
        """Pass on what is in the pipes; True when every writer has closed its end."""
        return self._output.drained()

    def finish(self) -> None:
        """The process is dead and so are all others that could write: take the rest, close."""
        self._output.finish()
        self._close()

    async def finish_within(self, patience: float) -> None:
        """The process is dead, others may still write: give them `patience` seconds at most."""
        await self._output.finish_within(patience)
        self._close()

    def _close(self) -> None:
        if self._stdin:
            self._stdin.disconnect()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        self.running.close()
