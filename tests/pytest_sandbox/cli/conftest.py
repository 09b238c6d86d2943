"""Runs `sandboxctl` as a user does: a process of its own, with or without a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

_MAIN = "from pytest_sandbox.cli import main; main()"


@dataclass
class Sandboxctl:
    """The command against one service."""

    environ: Mapping[str, str]
    terminals: list[Terminal] = field(default_factory=list)

    def __call__(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run to the end, without a terminal."""
        command = self.command(*args)
        return subprocess.run(command, input=stdin, env=self.environ, capture_output=True)

    def ok(self, *args: str, stdin: bytes = b"") -> str:
        """Run to a good end; standard output."""
        done = self(*args, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*args),
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def on_terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Start with a terminal of this size as standard input, output and error."""
        pid, fd = pty.fork()
        if pid == 0:
            try:
                os.execve(sys.executable, self.command(*args), dict(self.environ))
            finally:
                os._exit(127)
        self.terminals.append(Terminal(pid, fd))
        self.terminals[-1].resize(rows, columns)
        return self.terminals[-1]

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", _MAIN, *args]


@dataclass
class Terminal:
    """The far side of a pseudo terminal, as a person sees it."""

    pid: int
    fd: int
    seen: bytes = b""
    ended: bool = False

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, seconds: float = 30) -> None:
        """Read until this text is there; what is left after it is looked at next."""
        wanted = text.encode()
        while wanted not in self.seen:
            assert select.select([self.fd], [], [], seconds)[0], f"no {text!r} in {self.seen!r}"
            block = self._read()
            assert block, f"it ended without {text!r}: {self.seen!r}"
            self.seen += block
        self.seen = self.seen.partition(wanted)[2]

    def wait(self) -> int:
        """Read to the end; the exit code."""
        while block := self._read():
            self.seen += block
        os.close(self.fd)
        self.ended = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def echoes(self) -> bool:
        """Whether the terminal is in its usual mode."""
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more, pty(7)
            return b""


@pytest.fixture
def sandboxctl(service: Service) -> Iterator[Sandboxctl]:
    """The command against the service that all tests share; nothing more may be left in it."""
    sandboxctl = Sandboxctl(service.environ)
    before = set(sandboxctl.ok("ps", "-aq").split())
    yield sandboxctl
    for terminal in sandboxctl.terminals:
        if not terminal.ended:
            os.kill(terminal.pid, signal.SIGKILL)
            terminal.wait()
    assert not set(sandboxctl.ok("ps", "-aq").split()) - before
