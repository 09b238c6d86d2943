"""One command in a running container, from create to its whole output, in one call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any, Final

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.container import Container
from sandboxd.engine.execs import Exec, Execs
from sandboxd.engine.logs import Log
from sandboxd.engine.program import Program
from sandboxd.engine.runner import RunResult
from sandboxd.engine.stdin import Stdin
from sandboxd.errors import StartFailed

_PATIENCE: Final = 0.002
"""Seconds, as in `runner`: the output of a quick command is read once, at its end."""


class ExecRunner:
    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def run(
        self,
        container: Container,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        stdin: bytes = b"",
    ) -> RunResult:
        """Run a command and wait for its end; cancelling it, and `timeout` seconds, kill it.

        A command that cannot be executed is no error: its exit code is 127 or 126, and its reason
        is in stderr. Raises Conflict unless the container runs, BadRequest without a command.
        """
        attached = {"AttachStdout": True, "AttachStderr": True, "AttachStdin": bool(stdin)}
        exec_ = self._execs.find(self._execs.create(container, {**body, **attached}))
        log = Log(container.home)
        try:
            timed_out = await self._finish(exec_, log, timeout, stdin)
            stdout, stderr = log.collected()
            code = 0 if exec_.exit_code is None else exec_.exit_code
            return RunResult(code, stdout, stderr, exec_.id, timed_out, False, log.truncated)
        except StartFailed as error:
            reason = f"{error.message}\n".encode()
            return RunResult(error.exit_code, b"", reason, exec_.id, False, False, False)
        finally:
            log.close()

    async def _finish(self, exec_: Exec, log: Log, timeout: float | None, data: bytes) -> bool:
        """Wait for the end; whether it was the timeout that brought it."""
        loop = asyncio.get_running_loop()
        exec_.over = loop.create_future()
        feed = Stdin() if data else None
        program = await self._execs.begin(exec_, Outlet(log), feed)
        late: list[bool] = []
        timers = [loop.call_later(_PATIENCE, program.watch)]
        if timeout is not None:
            timers.append(loop.call_later(timeout, _kill_late, program, late))
        feeder = loop.create_task(_fed(feed, data)) if feed else None
        try:
            await exec_.over
        except asyncio.CancelledError:
            program.kill(signal.SIGKILL)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            if feeder:
                feeder.cancel()
        return bool(late)


def _kill_late(program: Program, late: list[bool]) -> None:
    if program.kill(signal.SIGKILL):
        late.append(True)


async def _fed(stdin: Stdin, data: bytes) -> None:
    await stdin.write(data)
    await stdin.close()
