"""Further commands in running containers: a joiner enters one and starts the command there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from sandboxd.errors import StartFailed
from sandboxd.launcher import dialogue, wire
from sandboxd.launcher.pool import Pool
from sandboxd.launcher.running import Running, Stdio
from sandboxd.launcher.spec import Process


class Joining:
    """One launcher's execs.

    A command takes over its joiner's token in `running` and `orders`, the launcher's books. The
    joiner tells of its end; where it does not live that long, `adopt` asks the fork server to.
    """

    def __init__(
        self,
        joiners: Pool,
        running: dict[int, Running],
        orders: dict[int, Pool],
        adopt: Callable[[Running], None],
    ) -> None:
        self._joiners = joiners
        self._running = running
        self._orders = orders
        self._adopt = adopt

    async def exec(
        self, target: Running, process: Process, stdio: Stdio, cgroups: tuple[str, ...]
    ) -> Running:
        """Start a command in the container of `target`; ended if nobody waits for it any more.

        Raises StartFailed.
        """
        joining = asyncio.create_task(self._join(target, process, stdio, cgroups))
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            joining.add_done_callback(_end_unwanted)
            raise

    async def _join(
        self, target: Running, process: Process, stdio: Stdio, cgroups: tuple[str, ...]
    ) -> Running:
        joiner = await self._joiners.take()
        try:
            dialogue.move_to_cgroups(joiner, cgroups)
            dialogue.tell(joiner, ("exec", tuple(process)), (target.pidfd, *stdio))
            while (answer := await dialogue.answer(joiner)) is not None:
                message, fds = answer
                if message[0] == "started":
                    return self._adopted(joiner, fds[0])
                dialogue.take(joiner, answer, process)
            raise StartFailed("enter the container", "the process that was to enter it ended")
        except BaseException:
            self._running.pop(joiner.token, None)
            dialogue.abandon(joiner)
            raise

    def _adopted(self, joiner: Running, descriptor: int) -> Running:
        command = Running(joiner.token, descriptor, joiner.control)
        command.pty = joiner.pty
        self._running[joiner.token] = command
        self._orders.pop(joiner.token, None)
        os.close(joiner.pidfd)
        command.hear(self._on_joiner)
        return command

    def _on_joiner(self, command: Running) -> None:
        """A joiner has told of the command's end, or has left the command to the fork server."""
        command.deafen()
        try:
            message, _ = wire.receive(command.control)
        except (EOFError, ConnectionResetError):
            if command.token in self._running:
                self._adopt(command)
            return
        self._running.pop(command.token, None)
        command.finish(message[1])


def _end_unwanted(joining: asyncio.Task[Running]) -> None:
    """A command that was started for somebody who is gone."""
    if joining.cancelled() or joining.exception() is not None:
        return
    command = joining.result()
    if command.pty is not None:
        os.close(command.pty)
    dialogue.kill(command)
    command.exited.add_done_callback(lambda _: command.close())
