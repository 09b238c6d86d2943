"""Nothing outlives its parent, and nothing is left behind."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def _ends(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 10)[0])


def test_when_the_fork_server_is_killed_every_container_dies(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        os.kill(b.launcher.pid, signal.SIGKILL)
        reason = await b.launcher.lost
        return _ends(running.pidfd), await running.exited, "fork server" in reason

    assert bench(scenario) == (True, 137, True)


def test_when_the_socket_closes_every_container_dies(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        await b.launcher.close()
        return _ends(running.pidfd)

    assert bench(scenario)


def test_an_idle_container_holds_no_python(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        with open(f"/proc/{running.pid}/maps") as maps:
            mapped = maps.read()
        with open(f"/proc/{running.pid}/task/{running.pid}/children") as children:
            return "python" in mapped, children.read()

    assert bench(scenario) == (False, "")


def test_a_hundred_starts_leave_no_descriptor_and_no_mount(bench: Run) -> None:
    def count(own: str) -> tuple[int, int]:
        with open("/proc/self/mountinfo") as mounts:
            return len(os.listdir("/proc/self/fd")), sum(own in line for line in mounts)

    async def scenario(b: Any) -> Any:
        own = str(b.tree.parent)
        await b.sh("true")
        before = count(own)
        for _ in range(100):
            assert await b.sh("true") == (0, "")
        while b.launcher.warm_slots < 2:
            import asyncio

            await asyncio.sleep(0.005)
        after = count(own)
        return (
            after[0] - before[0],
            after[1] - before[1],
            len(os.listdir(f"/proc/{b.launcher.pid}/fd")),
        )

    descriptors, mounts, of_the_server = bench(scenario)
    # Two warm slots, two descriptors each, may be on hand at either look.
    assert descriptors <= 4
    assert mounts == 0
    assert of_the_server < 16
