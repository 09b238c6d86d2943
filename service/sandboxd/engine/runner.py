"""One command from create to removal in one call: the hot path of the service."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandboxd.engine.attended import attended
from sandboxd.engine.container import Container
from sandboxd.engine.creation import Creation
from sandboxd.engine.leases import Lease
from sandboxd.engine.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended and what it wrote."""

    exit_code: int
    """128 and the signal's number for one that was killed."""
    stdout: bytes
    stderr: bytes
    id: str
    timed_out: bool
    oom: bool
    truncated: bool
    """The beginning of the output is missing: it was more than a log keeps."""


class Runner:
    def __init__(self, creation: Creation, lifecycle: Lifecycle) -> None:
        self._creation = creation
        self._lifecycle = lifecycle

    async def run(
        self,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        stdin: bytes = b"",
        lease: Lease | None = None,
    ) -> RunResult:
        """Create, start, wait, collect, remove. Cancelling it kills the container.

        After `timeout` seconds the container is killed. Raises what `create` and `start` raise.
        """
        body = {**body, "OpenStdin": bool(stdin), "StdinOnce": True}
        container = await self._creation.create(body, lease=lease, throwaway=True)
        # Its end must not remove it before its output is collected here.
        container.auto_remove = False
        ended = container.wait("next-exit")
        try:
            await self._lifecycle.start(container, watch=False)
            timed_out = await attended(container.program, ended, container.stdin, stdin, timeout)
            stdout, stderr = container.log.collected()
        except BaseException:
            self._give_up(container)
            raise
        truncated, oom = container.log.truncated, container.facts.oom_killed
        self._lifecycle.discard(container, volumes=True)
        return RunResult(ended.result(), stdout, stderr, container.id, timed_out, oom, truncated)

    def _give_up(self, container: Container) -> None:
        """Kill it, and let its end remove it; nobody waits."""
        if container.program is None:
            self._lifecycle.discard(container, volumes=True)
            return
        container.auto_remove = True
        container.program.kill(signal.SIGKILL)
