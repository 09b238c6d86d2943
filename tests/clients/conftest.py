"""Clients that others wrote, against a real service of ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service


SIZE = 'while [ -z "$(stty size 2>/dev/null)" ]; do sleep 0.01; done; stty size'
"""Prints rows and columns once they are known: a CLI before API 1.42 sends them after the start."""


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def commands_called(name: str) -> list[str]:
    """Every different program of this name on PATH: CLIs of several ages may be installed."""
    found = (Path(directory) / name for directory in os.get_exec_path())
    return sorted({str(path.resolve()): str(path) for path in found if path.exists()}.values())


class Docker:
    """One docker CLI, pointed at the service."""

    def __init__(self, command: str, host: str, config: Path) -> None:
        self.command = command
        self.environ = {**os.environ, "DOCKER_HOST": host, "DOCKER_CONFIG": str(config)}

    def __call__(
        self, *args: str, input: bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, whatever its exit status."""
        process = subprocess.Popen(
            [self.command, *args],
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
        )
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)

    def output(self, *args: str, input: bytes | None = None) -> str:
        """Its standard output, stripped; it must succeed."""
        done = self(*args, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def popen(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.command, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
        )

    @contextlib.contextmanager
    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
        """Run it on a pseudo-terminal of the given size."""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            [self.command, *args],
            stdin=side,
            stdout=side,
            stderr=side,
            env=self.environ,
            start_new_session=True,
        )
        os.close(side)
        try:
            yield Terminal(main, process)
        finally:
            process.kill()
            process.wait()
            os.close(main)


class Terminal:
    """The user's side of a pseudo-terminal with a program on it."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self._fd, self.process = fd, process
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self._fd, data)

    def until(self, text: bytes) -> bytes:
        """Read until `text` has been shown; all that was seen so far."""
        while text not in self.seen:
            self.seen += os.read(self._fd, 4096)
        return self.seen

    def end(self) -> int:
        """Read to the end; the program's exit status."""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while data := os.read(self._fd, 4096):
                self.seen += data
        return self.process.wait(timeout=30)


@pytest.fixture(params=commands_called("docker") or ["docker"])
def docker(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Docker:
    return Docker(request.param, service.host, tmp_path / "config")


@pytest.fixture
def name(docker: Docker) -> Iterator[str]:
    """A name for one container, which is removed when the test is over."""
    chosen = unique("t")
    yield chosen
    docker("rm", "-f", "-v", chosen)
