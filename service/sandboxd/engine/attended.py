"""A program whose caller waits for all of it: fed, watched, and killed when its time is over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import Final

from sandboxd.engine.program import Program
from sandboxd.engine.stdin import Stdin

_PATIENCE: Final = 0.002
"""Seconds in which a quick command's output may stay in its pipes, to be read once at its end.

Longer ones are read as they write. It spares a quick command six turns of the event loop.
"""


async def attended(
    program: Program | None,
    ended: Awaitable[int | None],
    stdin: Stdin | None,
    data: bytes,
    timeout: float | None,
) -> bool:
    """Wait for `ended`; whether it was the timeout, in seconds, that brought it.

    Without a program, which is so when it has ended already, there is nothing to do but wait.
    `data` goes to `stdin`, and then its end. Cancelling it leaves the program as it is.
    """
    if program is None:
        await ended
        return False
    loop, late = asyncio.get_running_loop(), list[bool]()
    timers = [loop.call_later(_PATIENCE, program.watch)]
    if timeout is not None:
        timers.append(loop.call_later(timeout, _kill_late, program, late))
    feeder = loop.create_task(_fed(stdin, data)) if stdin and data else None
    try:
        await ended
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
