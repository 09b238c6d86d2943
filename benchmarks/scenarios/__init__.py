"""What is measured, each with the goal that the project set itself; one module for each."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.result import Result
from benchmarks.scenarios import (
    build,
    commit,
    crowd,
    database,
    hermetic,
    lifecycle,
    one_shot,
    plugin_load,
    pull,
    push,
    sequential,
    tox_matrix,
)

SCENARIOS: dict[str, Callable[[Bench], Result]] = {
    "one-shot": one_shot.measure,
    "lifecycle": lifecycle.measure,
    "database": database.measure,
    "sequential": sequential.measure,
    "crowd": crowd.measure,
    "plugin-load": plugin_load.measure,
    "commit": commit.measure,
    "pull": pull.measure,
    "push": push.measure,
    "hermetic": hermetic.measure,
    "build": build.measure,
    "tox-matrix": tox_matrix.measure,
}
