"""Many containers at once, and the memory that the service's part of them takes."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from benchmarks.alternate import timed
from benchmarks.bench import Bench
from benchmarks.leftovers import family
from benchmarks.result import OURS, Goal, Result, Row
from benchmarks.rootfs import IMAGE

CONTAINERS = 200
_PRIVATE = re.compile(r"^Private_\w+: +(\d+) kB$", re.MULTILINE)


def measure(bench: Bench) -> Result:
    number = bench.rounds(CONTAINERS)
    result = Result("crowd", f"{number} containers at once")
    with bench.service.connect() as client, ExitStack() as stack:
        before = _private_mib(bench.service.pid, besides=set())

        def start_one() -> int:
            made = stack.enter_context(client.container(IMAGE, ["sleep", "1000"]))
            made.start()
            return int(made.inspect()["State"]["Pid"])

        commands: set[int] = set()
        samples = [timed(lambda: commands.add(start_one()))() for _ in range(number)]
        running = sum(container.status == "running" for container in client.containers())
        each = (_private_mib(bench.service.pid, besides=commands) - before) / number
    result.rows = [
        Row(OURS, samples, note="to create and start one more"),
        Row("private memory each", [each], "MiB", "service, launcher, slots; not the command"),
    ]
    result.goals = [
        Goal("running at once", running, number, at_most=False),
        Goal("MiB of private memory each", each, 1.5, at_most=True),
    ]
    return result


def _private_mib(pid: int, *, besides: set[int]) -> float:
    """Private memory of the service and all it started, without the containers' own commands."""
    total = 0
    for member in set(family(pid)) - besides:
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, _PRIVATE.findall(rollup)))
    return total / 1024
