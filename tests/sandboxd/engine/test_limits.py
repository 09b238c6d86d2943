"""Limits hold where they can be enforced, and are refused where they cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine.limits import Limiter
from sandboxd.engine.settings import Limits
from sandboxd.errors import CannotEnforce

Run = Callable[[Callable[..., Any]], Any]
EAT = "x=a; while true; do x=$x$x; done"


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(memory=1 << 30), "memory"),
        (Limits(pids=5), "pids"),
        (Limits(cpu_quota=1000), "cpu"),
        (Limits(memory=1 << 30, cpu_shares=2), "memory and cpu"),
    ],
)
def test_without_cgroups_a_limit_is_refused_with_what_mends_it(limits: Limits, named: str) -> None:
    with pytest.raises(CannotEnforce, match=f"the limit on {named}") as caught:
        Limiter(None).check(limits)
    assert "Delegate=yes" in caught.value.mend


def test_no_limit_needs_nothing() -> None:
    limiter = Limiter(None)
    limiter.check(Limits())
    enclosure = limiter.enclose("id", Limits())
    assert enclosure.directories == ()
    assert enclosure.close() is False
    assert not any(limiter.info().values())


@pytest.mark.needs_userns
@pytest.mark.needs_busybox
@pytest.mark.needs_cgroup
class TestWithCgroups:
    def test_memory(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            result = await b.sh(EAT, HostConfig={"Memory": 16 << 20, "MemorySwap": 16 << 20})
            return result.exit_code, result.oom, _groups(b)

        assert bench(scenario) == (137, True, ())

    def test_memory_of_an_exec(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await b.up("sleep", "99", HostConfig={"Memory": 16 << 20})
            code, _ = await b.exec(container, "sh", "-c", EAT)
            await b.engine.kill(container)
            return code, b.engine.inspect(container)["State"]["OOMKilled"], _groups(b)

        assert bench(scenario) == (137, True, ())

    def test_a_fork_bomb(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            bomb = "bomb() { bomb | bomb & }; bomb; sleep 0.5"
            result = await b.sh(bomb, HostConfig={"PidsLimit": 20})
            return b"fork" in result.stderr, (await b.sh("echo fine")).stdout, _groups(b)

        assert bench(scenario) == (True, b"fine\n", ())

    def test_limits_outlive_a_restart_of_the_container(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            container = await b.up("sh", "-c", EAT, HostConfig={"Memory": 16 << 20})
            codes = [await b.engine.wait(container)]
            await b.engine.start_container(container)
            codes.append(await b.engine.wait(container))
            return codes

        assert bench(scenario) == [137, 137]


def _groups(b: Any) -> tuple[str, ...]:
    """The cgroups that are there now for containers."""
    directories = set(b.engine._limiter._subtree.controllers.values())
    return tuple(entry.name for each in directories for entry in os.scandir(each) if entry.is_dir())


@pytest.mark.needs_userns
@pytest.mark.needs_busybox
@pytest.mark.needs_ordinary_user
def test_an_ordinary_users_containers_have_a_limit_on_processes_anyway(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        usual = (await b.sh("ulimit -u")).stdout
        own = {"Ulimits": [{"Name": "nproc", "Soft": 30, "Hard": 30}]}
        chosen = await b.sh("for i in $(seq 40); do sleep 9 & done", HostConfig=own)
        return usual, b"can't fork" in chosen.stderr, (await b.sh("echo fine")).stdout

    assert bench(scenario) == (b"2048\n", True, b"fine\n")
