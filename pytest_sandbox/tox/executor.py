"""tox's commands, run in containers: its executor, and one execution.

Install commands become layers, or are found to be some. All others run in the environment's one
container, one after the other: what the first writes into the project the next one reads.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from tox.execute.api import ExecuteInstance, ExecuteOptions, ExecuteStatus
from tox.execute.local_sub_process import (
    LocalSubprocessExecuteStatus,
    LocalSubProcessExecutor,
)
from tox.execute.request import ExecuteRequest, StdinSource
from tox.tox_env.errors import Fail

from pytest_sandbox.tox.installing import Installation
from pytest_sandbox.tox.job import Job

if TYPE_CHECKING:
    from tox.execute.stream import SyncWrite

CREATE: Final = "create"
"""The run_id of the command that makes the environment."""
_INSTALL: Final = "install_"


class SandboxExecutor(LocalSubProcessExecutor):
    """Runs the requests of one environment."""

    def __init__(self, colored: bool, env: Any) -> None:
        super().__init__(colored)
        self._env = env

    def build_instance(
        self, request: ExecuteRequest, options: ExecuteOptions, out: SyncWrite, err: SyncWrite
    ) -> ExecuteInstance:
        return SandboxInstance(request, options, out, err, self._env)


class SandboxInstance(ExecuteInstance):
    """One command: looked up as tox does, but where it will run."""

    def __init__(
        self,
        request: ExecuteRequest,
        options: ExecuteOptions,
        out: SyncWrite,
        err: SyncWrite,
        env: Any,
    ) -> None:
        super().__init__(request, options, out, err)
        self._env = env
        self._cmd: list[str] | None = None

    @property
    def cmd(self) -> Sequence[str]:
        if self._cmd is None:
            self._cmd = self._located()
        return self._cmd

    def __enter__(self) -> ExecuteStatus:
        columns, lines = shutil.get_terminal_size(fallback=(-1, -1))
        for name, number in (("COLUMNS", columns), ("LINES", lines)):
            if number != -1:
                self.request.env.setdefault(name, str(number))
        out, err = self.out_handler, self.err_handler
        no_capture = getattr(self._env.options, "no_capture", False)
        if no_capture and not getattr(self.request, "capture", False):
            out, err = _writer(1), _writer(2)
        run_id = self.request.run_id
        command = self.cmd  # here, where Fail ends the environment and not the command alone
        work = self._install if run_id == CREATE or run_id.startswith(_INSTALL) else self._run
        job = Job(lambda job: work(job, command), out, err)
        return LocalSubprocessExecuteStatus(self.options, self._out, self._err, job)  # type: ignore[arg-type]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Nothing is held here: the containers are the environment's."""

    def set_out_err(self, out: SyncWrite, err: SyncWrite) -> tuple[SyncWrite, SyncWrite]:
        before = self._out, self._err
        self._out, self._err = out, err
        return before

    def _install(self, job: Job, command: Sequence[str]) -> int:
        request, enclosure = self.request, self._env.enclosure
        installation = Installation.of(command, request.env, request.cwd)
        if request.run_id == CREATE:
            return int(enclosure.create(job, installation))
        return int(enclosure.install(job, installation, request.run_id))

    def _run(self, job: Job, command: Sequence[str]) -> int:
        request, enclosure = self.request, self._env.enclosure
        container = enclosure.container(job)
        shown = request.run_id.startswith(("commands", "extra_setup"))
        tty = shown and sys.stdout.isatty()
        wanted = request.stdin is StdinSource.USER
        columns, rows = shutil.get_terminal_size()
        with _keyboard(wanted and tty):
            return job.run(
                container,
                command,
                env=enclosure.environ(request.env),
                cwd=str(request.cwd),
                tty=tty,
                size=(rows, columns) if tty else None,
                stdin=sys.stdin.fileno() if wanted else None,
            )

    def _located(self) -> list[str]:
        """The command with its program's place, as the containers have it. Raises Fail."""
        name, *rest = self.request.cmd
        if self.request.run_id == CREATE:
            return [name, *rest]
        place = self._env.enclosure.located(name, self.request.env["PATH"], self.request.cwd)
        if place is None and not self._env.enclosure.own_image:
            return [name, *rest]
        self._check_allowed(name, place or name)
        return [place or name, *rest]

    def _check_allowed(self, name: str, place: str) -> None:
        allow = self.request.allow
        if allow is None or any(
            fnmatch.fnmatch(each, pattern) for pattern in allow for each in (name, place)
        ):
            return
        told = f"{name} (resolves to {place})" if name == place else name
        raise Fail(f"{told} is not allowed, use allowlist_externals to allow it")


def _writer(number: int) -> Any:
    def write(data: bytes) -> int:
        stream = sys.stdout if number == 1 else sys.stderr
        stream.flush()
        left = data
        while left:
            left = left[os.write(number, left) :]
        return len(data)

    return write


@contextmanager
def _keyboard(wanted: bool) -> Iterator[None]:
    """Let every key go to the command's terminal, which echoes; but signals stay ours, for tox."""
    if not (wanted and sys.stdin.isatty()):
        yield
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
