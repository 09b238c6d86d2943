"""Many containers one after the other, and what is left when they are gone."""

from __future__ import annotations

from benchmarks import leftovers
from benchmarks.alternate import timed
from benchmarks.bench import Bench
from benchmarks.result import OURS, Goal, Result, Row
from benchmarks.rootfs import IMAGE
from pytest_sandbox import CannotEnforce, Client, ContainerOptions

CONTAINERS = 1000
_WARM_UP = 20
"""Containers run before the first count, so that pools and caches have their size."""


def measure(bench: Bench) -> Result:
    number = bench.rounds(CONTAINERS)
    result = Result("sequential", f"{number} containers one after the other: what they leave")
    with bench.service.connect() as client:

        def one_shot() -> None:
            assert client.run(IMAGE, ["/bin/true"]).exit_code == 0

        limits = _limits(client)

        def one_lifecycle() -> None:
            with client.container(IMAGE, ["/bin/true"], **limits) as container:
                container.start()
                assert container.wait(timeout=30) == 0

        samples = []
        for kind in (one_shot, one_lifecycle):
            for _ in range(_WARM_UP):
                kind()
        before = leftovers.count_steady(bench.service)
        for kind in (one_shot, one_lifecycle):
            samples += [timed(kind)() for _ in range(number // 2)]
        after = leftovers.count_settled(bench.service, before)
    note = "half by run, half by create, start, wait, remove" + ("; with a limit" if limits else "")
    result.rows = [Row(OURS, samples, note=note)]
    result.goals = [
        Goal(f"{name} left behind", left, 0, at_most=True)
        for name, left in after.beyond(before).items()
    ]
    return result


def _limits(client: Client) -> ContainerOptions:
    """A limit, so that there are cgroups to leave behind; none where none can be enforced."""
    limits = ContainerOptions(pids_limit=100)
    try:
        client.run(IMAGE, ["/bin/true"], **limits)
    except CannotEnforce:
        return ContainerOptions()
    return limits
