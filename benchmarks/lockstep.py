"""A pytest run that does one test each time it is told to, so that real fixtures can alternate.

The benchmark starts pytest on a generated suite with `-p benchmarks.lockstep`, and two pipes whose
descriptor numbers stand in $SANDBOX_BENCH_PIPES ("read,write"). For each line read, one test runs;
then one line of JSON is written: [set-up and call, those with tear-down], in seconds, or the text
of the failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PIPES = "SANDBOX_BENCH_PIPES"


@contextlib.contextmanager
def suite(directory: Path, environ: dict[str, str]) -> Iterator[Callable[[], tuple[float, float]]]:
    """Run the suite in `directory`; yields what runs its next test: (ready, whole) in seconds."""
    go_read, go_write = os.pipe()
    told_read, told_write = os.pipe()
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    argv += ["-p", "benchmarks.lockstep", "--rootdir", str(directory), str(directory)]
    log = directory / "pytest.log"
    checkout = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env=environ | {PIPES: f"{go_read},{told_write}", "PYTHONPATH": checkout},
        pass_fds=[go_read, told_write],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    os.close(go_read)
    os.close(told_write)
    with os.fdopen(go_write, "w", buffering=1) as go, os.fdopen(told_read) as told:

        def step() -> tuple[float, float]:
            go.write("\n")
            answer = json.loads(told.readline() or json.dumps(log.read_text()))
            if isinstance(answer, str):
                raise RuntimeError(f"the suite failed:\n{answer}")
            ready, whole = answer
            return ready, whole

        try:
            yield step
        finally:
            with contextlib.suppress(BrokenPipeError):
                go.close()
            process.wait(timeout=60)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Lockstep(*map(int, os.environ[PIPES].split(","))))


class _Lockstep:
    """Holds each test back until its turn and reports how long it took; ends the run at EOF."""

    def __init__(self, go: int, told: int) -> None:
        self._go, self._told = os.fdopen(go), os.fdopen(told, "w", buffering=1)
        self._began = self._ready = 0.0
        self._failure = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not self._go.readline():
            item.session.shouldstop = "the benchmark has enough"
            return True
        self._began = time.perf_counter()
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failure = f"{report.when}: {report.longreprtext}"
        if report.when == "call":
            self._ready = time.perf_counter() - self._began

    def pytest_runtest_logfinish(self) -> None:
        answer = self._failure or [self._ready, time.perf_counter() - self._began]
        self._told.write(json.dumps(answer) + "\n")
