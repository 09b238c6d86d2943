"""Notes what tests spend, in every process that runs them, and hands it on with their reports.

With a report because each of the ways that a report can go leads to the process that shows it:
pytest-xdist's, a hermetic child's, both, or none at all. What is noted after the last report goes
with `workeroutput`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_sandbox.cost.events import Life, Recorder, Span, now
from pytest_sandbox.needs import planned_fixtures

BAGGAGE = "sandbox_cost"
"""The attribute of a report, and the key in `workeroutput`, that carries it."""
SHORTEST = 0.001
"""Seconds from which on the setup of an ordinary fixture is worth noting."""

Baggage = dict[str, Any]
"""`at`: when the report was made; `spans`, `lives`: rows of Span and Life; `uses`: names of the
test's fixtures that ask the service for something."""


def baggage(recorder: Recorder) -> Baggage:
    """What was noted, in the types that every serializer knows."""
    spans, lives = recorder.drain()
    return {
        "at": now(),
        "spans": [list(span) for span in spans],
        "lives": [list(life) for life in lives],
        "uses": [],
    }


def unpacked(packed: Baggage) -> tuple[list[Span], list[Life]]:
    spans = [Span(*row) for row in packed["spans"]]
    return spans, [Life(*row) for row in packed["lives"]]


class Recording:
    """Registered where an option asks for it."""

    def __init__(self, config: pytest.Config, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._recorder.test = item.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "teardown" and self._recorder.in_child:
            self._recorder.settle()  # the child may not come to its session's end
        packed = baggage(self._recorder)
        if report.when == "setup":
            packed["uses"] = planned_fixtures(item)
        setattr(report, BAGGAGE, packed)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        self._recorder.test = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        recorder, name = self._recorder, fixturedef.argname
        outer = recorder.fixture, recorder.home
        recorder.fixture, recorder.home = name, fixturedef.baseid
        span = recorder.span("setup", "fixture", name, scope=request.scope, at_least=SHORTEST)
        try:
            with span:
                return (yield)
        finally:
            recorder.fixture, recorder.home = outer

    def pytest_sessionfinish(self) -> None:
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output[BAGGAGE] = baggage(self._recorder)
