"""The standard streams of one process: what it writes is read here as it comes.

program ──pipe──▶ Output ──▶ Outlet ──▶ log
                                   └──▶ Attachment … (a slow one slows the program, as in Docker)
client ──▶ Attachment.write ──▶ Stdin ──pipe──▶ program
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from dataclasses import dataclass

from sandboxd.engine.attachments import Outlet

_CHUNK = 1 << 16
_PIPE_MAX = 1 << 20
"""Bytes: /proc/sys/fs/pipe-max-size as it is by default, pipe(7)."""


@dataclass(slots=True)
class Stdio:
    """The pipes of one start. `child` is for the program; ours are -1 where it has /dev/null."""

    child: tuple[int, int, int]
    stdin: int
    stdout: int
    stderr: int

    @classmethod
    def open(cls, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Stdio:
        """Raises OSError(EMFILE) when the service has no descriptors left; nothing stays open."""
        made: list[int] = []
        try:
            for piped, flags in (
                (stdin, os.O_RDONLY),
                (stdout, os.O_WRONLY),
                (stderr, os.O_WRONLY),
            ):
                if piped:
                    made += os.pipe2(os.O_CLOEXEC)
                else:
                    made += (-1, os.open(os.devnull, flags | os.O_CLOEXEC))
        except OSError:
            _close_all(made)
            raise
        # A pipe is (reading end, writing end): the program reads its input and writes the others.
        theirs, ours = (made[0], made[1]) if stdin else (made[1], -1)
        return cls((theirs, made[3], made[5]), ours, made[2], made[4])

    def close_child(self) -> None:
        """The program has its own copies: only when ours are gone does a pipe reach its end."""
        _close_all(self.child)

    def close_ours(self) -> None:
        _close_all((self.stdin, self.stdout, self.stderr))


def _close_all(fds: tuple[int, ...] | list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def resize(pty: int, rows: int, cols: int) -> None:
    """Set a terminal's size, TIOCSWINSZ in ioctl_tty(2); its foreground gets SIGWINCH."""
    fcntl.ioctl(pty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Output:
    """Reads descriptors as they fill and hands the bytes to an outlet; pauses when that is full."""

    def __init__(self, outlet: Outlet) -> None:
        self._loop = asyncio.get_running_loop()
        self._outlet = outlet
        self._open: dict[int, int] = {}
        self._watched = False
        self._at_end: asyncio.Future[None] | None = None

    def add(self, stream: int, fd: int) -> None:
        """Take over `fd`; what it gives belongs to `stream` (1 or 2). -1 is nothing to read."""
        if fd >= 0:
            os.set_blocking(fd, False)
            self._open[fd] = stream

    def watch(self) -> None:
        """From now on read whenever something comes."""
        if not self._watched:
            self._watched = True
            self._outlet.on_space(self.watch)
            for fd in self._open:
                self._loop.add_reader(fd, self._readable, fd)

    def drained(self) -> bool:
        """Read what is there, however slow the clients are; True when all has come to its end.

        A writer that still lives gets no more than a pipe's greatest size of attention.
        """
        for fd in list(self._open):
            for _ in range(_PIPE_MAX // _CHUNK):
                if fd not in self._open or not self._read(fd):
                    break
        return not self._open

    def finish(self) -> None:
        """Read what is there and close."""
        self.drained()
        for fd in list(self._open):
            self._close(fd)
        self._outlet.on_space(None)

    async def finish_within(self, patience: float) -> None:
        """Wait until the last writer has closed its end, but `patience` seconds at most."""
        if self._open:
            self._at_end = self._loop.create_future()
            self.watch()
            await asyncio.wait([self._at_end], timeout=patience)
        self.finish()

    def _readable(self, fd: int) -> None:
        if fd in self._open:
            self._read(fd)
        if self._watched and self._outlet.full:
            self._watched = False
            for other in self._open:
                self._loop.remove_reader(other)

    def _read(self, fd: int) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody holds the terminal's other side any more, pty(7).
            data = b""
        if data:
            self._outlet.put(self._open[fd], data)
        else:
            self._close(fd)
        return bool(data)

    def _close(self, fd: int) -> None:
        del self._open[fd]
        if self._watched:
            self._loop.remove_reader(fd)
        os.close(fd)
        if not self._open and self._at_end and not self._at_end.done():
            self._at_end.set_result(None)
