"""Runs the health checks of running containers."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import Final

from sandboxd.engine.container import Container
from sandboxd.engine.events import Events
from sandboxd.engine.execs import Execs
from sandboxd.engine.health import Health
from sandboxd.engine.settings import Healthcheck
from sandboxd.errors import SandboxError

log = logging.getLogger("sandboxd.engine")

_OUTPUT_MAX: Final = 4096
_FAILED: Final = 1
_TIMED_OUT: Final = -1


class HealthMonitor:
    """One task for each running container that has a health check."""

    def __init__(self, execs: Execs, events: Events) -> None:
        self._execs = execs
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, container: Container) -> None:
        """The container has started: check it until it ends."""
        check, health = container.settings.healthcheck, container.health
        if check and health:
            health.reset()
            task = asyncio.get_running_loop().create_task(self._watch(container, check, health))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _watch(self, container: Container, check: Healthcheck, health: Health) -> None:
        ended = container.wait("next-exit")
        while True:
            age = (time.time_ns() - container.facts.started) / 1e9
            starting = health.status == "starting" and age < check.start_period
            await asyncio.wait(
                [ended], timeout=check.start_interval if starting else check.interval
            )
            if ended.done():
                return
            begun = time.time_ns()
            code, output = await self._probe(container, check)
            ended_at = time.time_ns()
            age = (begun - container.facts.started) / 1e9
            if health.record(check, begun=begun, ended=ended_at, code=code, output=output, age=age):
                action = f"health_status: {health.status}"
                self._events.publish("container", action, container.id, container.attributes)

    async def _probe(self, container: Container, check: Healthcheck) -> tuple[int, str]:
        """Exit code and output of one check."""
        body = {"Cmd": check.command, "AttachStdout": True, "AttachStderr": True}
        output = bytearray()
        try:
            id = self._execs.create(container, body)
            attachment = await self._execs.start(id)
            assert attachment is not None
            try:
                async with asyncio.timeout(check.timeout):
                    async for _, data in attachment:
                        output += data[: _OUTPUT_MAX - len(output)]
            except TimeoutError:
                self._execs.kill(id, signal.SIGKILL)
                return _TIMED_OUT, f"Health check exceeded timeout ({check.timeout:g}s)"
        except SandboxError as error:
            return _FAILED, error.message
        code = self._execs.find(id).exit_code
        return _FAILED if code is None else code, output.decode(errors="replace")
