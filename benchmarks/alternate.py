"""How runs are interleaved, so that a slow minute of the machine hits every subject alike.

Each round runs every subject once, in an order shuffled with a fixed seed: A B C, B A C, C A B ...
A subject that takes seconds takes part in every n-th round only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.result import Row

SETTLE = 0.02
"""Seconds of quiet after each run: namespaces, mounts and daemons clean up behind the caller's
back, and on two cores that would be billed to whoever comes next. `back_to_back` leaves it out."""


@dataclass(frozen=True)
class Subject:
    """One way to do the job. `run` does it once and returns the seconds it took."""

    name: str
    run: Callable[[], float]
    every: int = 1
    note: str = ""


def timed(action: Callable[[], object]) -> Callable[[], float]:
    """Wrap `action` so that it returns the wall seconds of one call."""

    def run() -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return run


def alternate(subjects: Sequence[Subject], rounds: int, *, warm_up: int = 1) -> list[Row]:
    """Run all subjects `rounds` times, interleaved, after `warm_up` unrecorded rounds."""
    order = random.Random(20261124)  # any fixed value: runs stay comparable
    samples: Mapping[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(-warm_up, rounds):
        due = [s for s in subjects if number < 0 or number % s.every == 0]
        order.shuffle(due)
        for subject in due:
            seconds = subject.run()
            if number >= 0:
                samples[subject.name].append(seconds)
            time.sleep(SETTLE)
    return [Row(subject.name, samples[subject.name], note=subject.note) for subject in subjects]


def back_to_back(run: Callable[[], float], seconds: float) -> float:
    """Runs per second of wall time in a closed loop with one in flight, nothing between them."""
    count = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        run()
        count += 1
    return count / elapsed
