"""The service's socket, and starting the service when nobody answers there.

Whoever needs the service first starts it: a lock beside the socket lets one process do it while
the others wait and then find it running. The service is detached (a session of its own, no parent
that would have to wait for it), and tells over a pipe that it is ready or why it is not.

Everything that costs time to import is imported when the service has to be started.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.errors import SandboxError

START_TIMEOUT = 60.0
"""Seconds that a service may take until it is ready."""

_NOT_RUNNING = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)
_LOG_TAIL = 2000
_OWN_PROCESS_ONLY = frozenset(
    ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG")
)
"""Environment that a developer sets for the test run: it would slow down or break the service."""

_UCRED = struct.Struct("3i")

_DETACH = "import os, sys; os.fork() or os.execv(sys.argv[1], sys.argv[1:])"
"""The service must not stay a child of a test run, which might wait for or count its children."""


class _Socket(socket.socket):
    """One that a forgotten client leaves behind in silence, as a forgotten process does."""

    def __del__(self) -> None:
        self.close()


class Service:
    """Where the service listens, and how to get a connection to it.

    Raises BadRequest for a `host` that is not `unix:///absolute/path` or is too long for a socket.
    """

    def __init__(self, host: str | None = None, *, autostart: bool = True) -> None:
        from sandboxd.paths import SUN_PATH_MAX, socket_path

        self.autostart = autostart
        self.socket_path = socket_path({"SANDBOX_HOST": host}) if host else socket_path()
        if len(os.fsencode(self.socket_path)) > SUN_PATH_MAX:
            from sandboxd.errors import BadRequest

            raise BadRequest(
                f"socket path {self.socket_path}",
                f"it is longer than the {SUN_PATH_MAX} bytes that a unix socket's path may have",
                "set SANDBOX_HOST=unix:///a/shorter/path/docker.sock",
            )

    @property
    def host(self) -> str:
        """The address as SANDBOX_HOST and DOCKER_HOST take it."""
        return f"unix://{self.socket_path}"

    def connect(self) -> socket.socket:
        """A connected socket; starts the service unless `autostart` is false.

        Raises ServiceUnavailable when there is no service and none could be started, Forbidden when
        the socket or its directory belongs to somebody else, and what the service itself reports.
        """
        try:
            return self._connect()
        except _NOT_RUNNING as error:
            if not self.autostart:
                raise _unavailable(self.socket_path, _cause(error)) from error
        return self._start_and_connect()

    def start(self) -> bool:
        """See to it that the service runs; whether it had to be started. Raises like `connect`."""
        try:
            self._connect().close()
        except _NOT_RUNNING:
            self._start_and_connect().close()
            return True
        return False

    def running(self) -> bool:
        """Whether the service answers; does not start it. Forbidden when it is not ours."""
        try:
            self._connect().close()
        except _NOT_RUNNING:
            return False
        return True

    def _connect(self) -> socket.socket:
        sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(self.socket_path))
            _check_peer(sock, self.socket_path)
        except BaseException as error:
            sock.close()
            if isinstance(error, PermissionError):
                raise _forbidden(self.socket_path, str(error)) from error
            if isinstance(error, OSError) and not isinstance(error, _NOT_RUNNING):
                raise _unavailable(self.socket_path, str(error)) from error
            raise
        return sock

    def _start_and_connect(self) -> socket.socket:
        from sandboxd.errors import SandboxError

        directory = _own_directory(self.socket_path.parent, "SANDBOX_HOST")
        try:
            with _exclusive(directory / "start.lock"):
                try:
                    return self._connect()  # another process has started it meanwhile
                except _NOT_RUNNING:
                    _start(self.socket_path)
                return self._connect()
        except OSError as error:
            raise SandboxError.from_os(f"starting the service at {self.host}", error) from error


def _own_directory(path: Path, variable: str) -> Path:
    """A directory of ours alone, made if it is missing; `variable` is what would move it."""
    from sandboxd.errors import SandboxError
    from sandboxd.paths import private_directory

    try:
        return private_directory(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise SandboxError(f"making the directory {path}", why, f"set {variable}") from error


def _check_peer(sock: socket.socket, path: Path) -> None:
    """Refuse a service that another user, root excepted, has put there: unix(7), SO_PEERCRED."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    if uid not in (os.getuid(), 0):
        raise _forbidden(path, f"user id {uid} serves it, not {os.getuid()}")


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold flock(2) on a file, as filelock does, but woken by the kernel instead of polling."""
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _start(path: Path) -> None:
    """Start the service and wait until it says that it is ready."""
    import subprocess

    from sandboxd.paths import state_root

    root = _own_directory(state_root(), "SANDBOX_ROOT")
    ready, told = os.pipe2(os.O_CLOEXEC)
    with open(ready, "rb", buffering=0) as answers, open(root / "service.log", "ab") as log:
        before = log.tell()
        try:
            subprocess.run(
                _command(told),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(told,),
                start_new_session=True,
                cwd="/",
                env=_environment(path),
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise _unavailable(path, f"it could not be started: {error}") from error
        finally:
            os.close(told)
        line = _read_line(answers.fileno())
    if line != b"ready":
        raise _refusal(path, line, root / "service.log", before)


def _environment(path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in _OWN_PROCESS_ONLY}
    return {**ours, "SANDBOX_HOST": f"unix://{path}"}


def _command(told: int) -> list[str]:
    import sys

    serve = [sys.executable, "-m", "sandboxd", "serve", "--ready-fd", str(told)]
    return [sys.executable, "-I", "-S", "-c", _DETACH, *serve]


def _read_line(fd: int) -> bytes | None:
    """What the service says, without the line's end; b"" if it ended, None if it is too slow."""
    import select
    import time

    deadline = time.monotonic() + START_TIMEOUT
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        if not (block := os.read(fd, 1 << 16)):
            break
        line += block
    return line.rstrip(b"\n")


def _refusal(path: Path, line: bytes | None, log: Path, before: int) -> SandboxError:
    """The error for a service that has not said `ready`."""
    if line is None:
        return _unavailable(path, f"it was not ready after {START_TIMEOUT:.0f} s; see {log}")
    word, _, wire = line.partition(b" ")
    if word == b"error":
        import json

        from pytest_sandbox.errors import error_from_wire

        return error_from_wire(json.loads(wire))
    with open(log, "rb") as file:
        file.seek(before)
        tail = file.read()[-_LOG_TAIL:].decode(errors="replace").strip()
    return _unavailable(path, f"it ended at its start; {log} says:\n{tail}")


def _cause(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"{error.strerror}: the service that made the socket has ended"
    return "there is no such socket"


def _unavailable(path: Path, why: str) -> SandboxError:
    from pytest_sandbox.errors import ServiceUnavailable

    mend = "sandboxctl service start; sandboxctl doctor checks the machine"
    return ServiceUnavailable(f"no sandbox service answers at {path}", why, mend)


def _forbidden(path: Path, why: str) -> SandboxError:
    from sandboxd.errors import Forbidden

    mend = "set SANDBOX_HOST=unix:///a/directory/of/yours/docker.sock"
    return Forbidden(f"the socket {path}", why, mend)
