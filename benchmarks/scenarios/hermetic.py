"""What a trivial test costs in a sandbox: from the end of collection to that of the session.

Whatever a run starts for its tests is in there, spread over them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.peers import pytest_forked
from benchmarks.result import OURS, Goal, Result

FUNCTION = f"{OURS}, a sandbox for each test"
PLAIN = "pytest"
FORKED = "pytest-forked"
LARGE = ", 260 MB"
TESTS = 300

_CONFTEST = """
import os, time

{ballast}
def pytest_collection_modifyitems():
    global began
    began = time.perf_counter()

def pytest_unconfigure(config):
    with open(os.environ["BENCHMARK_TOOK"], "w") as file:
        file.write(str(time.perf_counter() - began))
"""
_BALLAST = "ballast = [{'number': str(number)} for number in range(760_000)]\n"


def measure(bench: Bench) -> Result:
    result = Result("hermetic", f"one of {TESTS} trivial tests in 3 modules")
    small, large = _suite(bench.work / "small"), _suite(bench.work / "large")
    (large / "conftest.py").write_text(_CONFTEST.format(ballast=_BALLAST))
    ours = [sys.executable, "-m", "pytest", "-p", "pytest_sandbox.plugin"]

    def forked() -> list[str]:
        return [pytest_forked.python(bench.work), "-m", "pytest", "-p", "pytest_forked", "--forked"]

    subjects = present(
        result,
        {
            PLAIN: lambda: Subject(PLAIN, _run(small, ours)),
            OURS: lambda: Subject(OURS, _run(small, [*ours, "--hermetic"]), note="by module"),
            FUNCTION: lambda: Subject(FUNCTION, _run(small, [*ours, "--hermetic=function"])),
            FORKED: lambda: Subject(FORKED, _run(small, forked()), note="pytest 8.4"),
            FUNCTION + LARGE: lambda: Subject(
                FUNCTION + LARGE, _run(large, [*ours, "--hermetic=function"]), every=3
            ),
            FORKED + LARGE: lambda: Subject(FORKED + LARGE, _run(large, forked()), every=3),
        },
    )
    result.rows = alternate(subjects, bench.rounds(11))
    function, plain = result.median(FUNCTION), result.median(PLAIN)
    assert function is not None
    assert plain is not None
    result.goals = [
        Goal("times a plain test, by module", result.ratio(OURS, PLAIN), 1.7, at_most=True),
        Goal("times pytest-forked, by test", result.ratio(FUNCTION, FORKED), 1.0, at_most=True),
        Goal("seconds over a plain test, by test", function - plain, 0.008, at_most=True),
        Goal(
            "times pytest-forked, by test, of a run of 260 MB",
            result.ratio(FUNCTION + LARGE, FORKED + LARGE),
            0.5,
            at_most=True,
        ),
    ]
    return result


def _suite(directory: Path) -> Path:
    """Trivial tests in three modules."""
    directory.mkdir(mode=0o755)
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "conftest.py").write_text(_CONFTEST.format(ballast=""))
    for module in range(3):
        lines = [f"def test_{number}(): pass\n" for number in range(TESTS // 3)]
        (directory / f"test_{module}.py").write_text("".join(lines))
    return directory


def _run(suite: Path, command: Sequence[str]) -> Callable[[], float]:
    """Seconds for each test of one run, as the run itself has measured them."""
    took = suite / "took"
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "BENCHMARK_TOOK": str(took)}

    def run() -> float:
        done = subprocess.run(
            [*command, "-q", "-p", "no:cacheprovider"],
            cwd=suite,
            env=environ,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return float(took.read_text()) / TESTS

    return run
