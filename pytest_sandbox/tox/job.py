"""What tox takes for a process: work in a thread, most of it commands in containers.

It has as much of `subprocess.Popen` as tox uses. Signals go to the command that runs at that
moment; one that comes in between ends the work before the next.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container

Handler = Callable[[bytes], int]

FAILED: Final = 125
"""The exit code of work that failed besides its commands, as of `docker run`."""


class Interrupted(Exception):
    """A signal came while no command ran."""


class Job:
    """`work` gets the job, to run commands by, and returns an exit code."""

    stdin = stdout = stderr = None

    def __init__(self, work: Callable[[Job], int], out: Handler, err: Handler) -> None:
        self.out, self.err = out, err
        self.returncode: int | None = None
        self.pid = 0
        """Of the command that runs, as this machine counts; 0 before the first."""
        self._work = work
        self._mutex = threading.Lock()
        self._running = -1
        self._signal = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-job", daemon=True)
        self._thread.start()

    def run(
        self,
        container: Container,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        stdin: int | None = None,
        out: Callable[[bytes], Any] | None = None,
    ) -> int:
        """Run a command in `container`, its output going to the handlers; its exit code.

        `out` takes its standard output instead. Raises Interrupted, SandboxError.
        """
        self.check()
        exec_id = container.create_exec(
            args, env=env, workdir=cwd, stdin=stdin is not None, tty=tty, size=size
        )
        with container.start_exec(exec_id, tty=tty) as attachment:
            self._begin(container.exec_inspect(exec_id)["Pid"])
            try:
                for stream, data in attachment.exchange(source=stdin):
                    handler = self.err if stream == 2 else out or self.out
                    handler(data)
            finally:
                self._end()
        return int(container.exec_inspect(exec_id)["ExitCode"])

    def check(self) -> None:
        """Raises Interrupted when a signal has come since the last command ended."""
        with self._mutex:
            if self._signal:
                raise Interrupted

    def _begin(self, pid: int) -> None:
        """The command's pid is the service's view of it, which is ours: one machine, one user."""
        with self._mutex:
            self.pid = pid
            try:
                self._running = os.pidfd_open(pid) if pid > 0 else -1
            except OSError:
                return  # it has ended
            if self._signal:
                self._send(self._signal)

    def _end(self) -> None:
        with self._mutex:
            if self._running >= 0:
                os.close(self._running)
            self._running = -1

    def _run(self) -> None:
        from pytest_sandbox.errors import SandboxError, StartFailed

        try:
            code = self._work(self)
        except Interrupted:
            code = -self._signal
        except StartFailed as error:
            code = self._failed(error, error.exit_code)
        except SandboxError as error:
            code = self._failed(error, FAILED)
        except Exception as error:
            code = self._failed(repr(error), FAILED)
        self._finish(code)

    def _failed(self, error: object, code: int) -> int:
        self.err(f"sandbox: {error}\n".encode())
        return code

    def _finish(self, code: int) -> None:
        with self._mutex:
            if self.returncode is None:
                self.returncode = code
        self._over.set()

    # what tox calls

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._over.wait(timeout):
            raise subprocess.TimeoutExpired("sandbox", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        with self._mutex:
            if self.returncode is not None:
                return
            if self._running >= 0:
                self._send(number)
            else:
                self._signal = number

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """The command is killed, and nobody waits any longer for what else is being done."""
        self.send_signal(signal.SIGKILL)
        self._thread.join(1)
        self._finish(-signal.SIGKILL)

    def _send(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._running, number)
        except OSError:
            pass  # it has ended at this moment
