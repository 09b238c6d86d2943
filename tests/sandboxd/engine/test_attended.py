"""Programs whose caller waits for all of it, at the edges of their lives."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.attended import attended
from sandboxd.engine.logs import Log
from sandboxd.engine.program import Program
from sandboxd.engine.streams import Output
from sandboxd.launcher.running import Running


@contextmanager
def _program(*command: str) -> Iterator[tuple[Program, Log, Callable[[], Awaitable[int]]]]:
    """A child of ours as a program, its log, and what waits for its end and then closes it."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    ours, theirs = socket.socketpair()
    running = Running(1, os.pidfd_open(child.pid), ours)
    with tempfile.TemporaryDirectory() as home, theirs:
        log = Log(Path(home))
        output = Output(Outlet(log))
        output.add(1, os.dup(child.stdout.fileno()))
        program = Program(running, output, None, -1)

        async def end() -> int:
            code = await asyncio.to_thread(child.wait)
            program.finish()
            return code

        yield program, log, end
        child.stdout.close()
        log.close()


def test_the_timeout_kills_what_lives() -> None:
    async def scenario() -> bool:
        with _program("sleep", "1000") as (program, _, end):
            return await attended(program, end(), None, b"", 0.01)

    assert asyncio.run(scenario()) is True


def test_a_program_that_is_closed_already_is_gone() -> None:
    async def scenario() -> tuple[bool, bool, bytes]:
        with _program("echo", "whole") as (program, log, end):
            await end()
            never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.02, never.set_result, 0)
            late = await attended(program, never, None, b"", 0.001)
            return late, program.kill(9), log.collected()[0]

    assert asyncio.run(scenario()) == (False, False, b"whole\n")


def test_what_has_ended_before_it_was_asked_for_is_not_late() -> None:
    async def scenario() -> bool:
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ended.set_result(0)
        return await attended(None, ended, None, b"never read", 0.0)

    assert asyncio.run(scenario()) is False
