"""One command in a running container, from create to its whole output, in one call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.attended import attended
from sandboxd.engine.container import Container
from sandboxd.engine.execs import Exec, Execs
from sandboxd.engine.logs import Log
from sandboxd.engine.runner import RunResult
from sandboxd.engine.stdin import Stdin
from sandboxd.errors import StartFailed


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
        over = exec_.over = asyncio.get_running_loop().create_future()
        feed = Stdin() if data else None
        program = await self._execs.begin(exec_, Outlet(log), feed)
        try:
            return await attended(program, over, feed, data, timeout)
        except asyncio.CancelledError:
            program.kill(signal.SIGKILL)
            raise
