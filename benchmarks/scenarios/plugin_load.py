"""What having the plugin installed costs a pytest run that does not use it."""

from __future__ import annotations

import statistics
import sys
from importlib.metadata import entry_points

from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench
from benchmarks.peers import command
from benchmarks.result import OURS, Goal, Result

WITHOUT = "pytest without it"
_OURS = {"sandbox", "sandbox_fixtures"}


def measure(bench: Bench) -> Result:
    result = Result("plugin-load", "a pytest run of one empty test")
    test = bench.work / "test_empty.py"
    test.write_text("def test_nothing():\n    pass\n")
    # Other plugins are off in both: one that imports much would hide what ours imports too.
    others = {entry.name for entry in entry_points(group="pytest11")} - _OURS
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    argv += _blocked(others)
    subjects = [
        Subject(OURS, command(argv)),
        Subject(WITHOUT, command([*argv, *_blocked(_OURS)])),
    ]
    result.rows = alternate(subjects, bench.rounds(60), warm_up=2)
    with_it, without = (row.samples for row in result.rows)
    paired = [a - b for a, b in zip(with_it, without, strict=True)]
    cost = statistics.median(paired)
    result.goals = [Goal("seconds more, median of pairs", cost, 0.010, at_most=True)]
    return result


def _blocked(plugins: set[str]) -> list[str]:
    return [part for name in sorted(plugins) for part in ("-p", f"no:{name}")]
