"""What the page's script draws: the run as short rows of JSON, times in milliseconds."""

from __future__ import annotations

import json
from typing import Any

from pytest_sandbox.cost import ansi
from pytest_sandbox.cost.events import Life
from pytest_sandbox.cost.run import OUTCOMES, PHASES, Run

_NAME_MAX = 300
FAILURES_MAX = 500
"""Failed tests that the page tells of in full, the first ones."""
LOGS_MAX = 400
"""Containers in its list; those of failed tests come first."""
SPANS_MAX = 20_000
"""Of all that took time, the longest."""


class Anchors:
    """Ids of the parts of the page that tell of a test or of a container, by `id(…)` of it."""

    def __init__(self, run: Run) -> None:
        failed = [case for case in run.tests if case.failures][:FAILURES_MAX]
        self.of_case = {id(case): f"failure-{number}" for number, case in enumerate(failed)}
        bad = {(case.worker, case.name) for case in failed}

        def interest(pair: tuple[str, Life]) -> tuple[bool, bool]:
            worker, life = pair
            return (worker, life.test) not in bad, not life.log

        told = {id(life) for _, life in sorted(run.lives, key=interest)[:LOGS_MAX]}
        ordered = [life for _, life in run.lives if id(life) in told]
        self.of_life = {id(life): f"container-{number}" for number, life in enumerate(ordered)}


def as_json(run: Run, anchors: Anchors) -> str:
    """The content of a script element: it cannot end that element, whatever tests have written."""
    text = json.dumps(_rows(run, anchors), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rows(run: Run, anchors: Anchors) -> dict[str, Any]:
    workers = run.workers()
    number = {worker: index for index, worker in enumerate(workers)}
    phases: list[str] = [*PHASES, "setup"]
    last = {(case.worker, case.name): index for index, case in enumerate(run.tests)}
    names: dict[str, int] = {}

    def ms(seconds: float) -> float:
        return round(1000 * seconds, 1)

    def at(time: float) -> float:
        return ms(max(0.0, time - run.began))

    tests = [
        [
            _short(case.nodeid),
            number[case.worker],
            OUTCOMES.index(case.outcome),
            at(case.start),
            ms(case.setup),
            ms(case.call),
            ms(case.teardown),
            [names.setdefault(use, len(names)) for use in case.uses],
            anchors.of_case.get(id(case), 0),
        ]
        for case in run.tests
    ]
    longest = sorted(run.spans, key=lambda pair: pair[1].start - pair[1].stop)[:SPANS_MAX]
    spans = [
        [
            phases.index(span.phase),
            _short(span.label),
            number[worker],
            at(span.start),
            at(span.stop),
            last.get((worker, span.test), -1),
        ]
        for worker, span in longest
    ]
    lives = [
        [
            _short(life.name),
            number[worker],
            at(life.start),
            at(life.stop or run.ended),
            life.state,
            _short(life.image),
            last.get((worker, life.test), -1),
            anchors.of_life.get(id(life), 0),
        ]
        for worker, life in run.lives
    ]
    return {
        "length": max(1.0, ms(run.ended - run.began)),
        "workers": [_short(run.label(worker)) for worker in workers],
        "outcomes": OUTCOMES,
        "phases": phases,
        "names": [_short(name) for name in names],
        "tests": tests,
        "spans": spans,
        "lives": lives,
    }


def _short(text: str) -> str:
    shown = ansi.plain(text)
    return shown if len(shown) <= _NAME_MAX else f"{shown[:_NAME_MAX]}…"
