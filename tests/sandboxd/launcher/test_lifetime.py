"""Nothing outlives its parent, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.launcher import twin

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


def _states(server: int) -> dict[str, dict[int, str]]:
    """The fork server's children by name: process id to state."""
    found: dict[str, dict[int, str]] = {"sandbox-twin": {}, "sandbox-slot": {}, "sleep": {}}
    with open(f"/proc/{server}/task/{server}/children") as children:
        for pid in children.read().split():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    name, _, rest = stat.read().partition(" (")[2].rpartition(") ")
            except OSError:
                continue
            found.setdefault(name, {})[int(pid)] = rest[0]
    return found


async def _settled(server: int, running: int) -> dict[str, dict[int, str]]:
    """Once there are two slots, two twins or none, and so many commands that sleep."""
    async with asyncio.timeout(20):
        while True:
            found = _states(server)
            twins, sleeping = found["sandbox-twin"], list(found["sleep"].values())
            settled = (len(found["sandbox-slot"]), sleeping) == (2, ["S"] * running)
            if settled and len(twins) in (0, 2):
                return found
            await asyncio.sleep(0.005)


def test_a_twin_goes_once_its_slot_has_executed_its_command(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        for _ in range(5):
            await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        found = await _settled(b.launcher.pid, running=5)
        expected = ["t", "t"] if twin.possible() else []
        return list(found["sandbox-twin"].values()) == expected

    assert bench(scenario) is True


def test_a_twin_goes_when_its_slot_was_slow_to_execute(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        before = await _settled(b.launcher.pid, running=0)
        for slot in before["sandbox-slot"]:
            os.kill(slot, signal.SIGSTOP)
        start = asyncio.create_task(b.launcher.start(b.spec("sleep", "1000"), (null, null, null)))
        await asyncio.sleep(0.2)  # the fork server has seen its pause in between
        for slot in before["sandbox-slot"]:
            os.kill(slot, signal.SIGCONT)
        await start
        return len((await _settled(b.launcher.pid, running=1))["sandbox-slot"])

    assert bench(scenario) == 2


def test_a_hundred_starts_and_execs_leave_no_descriptor_and_no_mount(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        def count() -> tuple[int, int, int]:
            with open("/proc/self/mountinfo") as mounts:
                own = sum(str(b.tree.parent) in line for line in mounts)
            server = len(os.listdir(f"/proc/{b.launcher.pid}/fd"))
            return len(os.listdir("/proc/self/fd")), own, server

        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        await b.sh("true")
        bounds = [held + more for held, more in zip(count(), limits, strict=True)]
        for _ in range(50):
            assert await b.sh("true") == (0, "")
            entered = await b.launcher.exec(running, b.spec("true").process, (null, null, null))
            assert await entered.exited == 0
            entered.close()
        async with asyncio.timeout(20):
            while any(now > most for now, most in zip(count(), bounds, strict=True)):
                await asyncio.sleep(0.005)
        return True

    # What is warm at either look: two slots and four joiners, two descriptors each. The server has
    # twins besides, and mounts of ended containers, which go when nothing else is to be done.
    limits = (12, 0, 2 * 2 + 12 + 17)
    assert bench(scenario) is True


def test_an_exec_that_nobody_waits_for_any_more_is_ended(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        null = os.open("/dev/null", os.O_RDWR)
        running = await b.launcher.start(b.spec("sleep", "1000"), (null, null, null))
        process, cancelled = b.spec("sleep", "1001").process, 0
        for delay in (0, 0, 0.0005, 0.001):
            entering = asyncio.ensure_future(b.launcher.exec(running, process, (null, null, null)))
            await asyncio.sleep(delay)
            if entering.cancel():
                cancelled += 1
            else:
                (await entering).kill(signal.SIGKILL)
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        while sleepers(b.launcher.pid, "1001"):
            await asyncio.sleep(0.005)
        return cancelled

    assert bench(scenario) >= 2


def sleepers(server: int, argument: str) -> list[str]:
    """Commands with this argument among the fork server's children, which an exec's are at last."""
    with open(f"/proc/{server}/task/{server}/children") as children:
        pids = children.read().split()
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline") as line:
                found += [pid] if argument in line.read().split("\0") else []
        except OSError:
            pass
    return found
