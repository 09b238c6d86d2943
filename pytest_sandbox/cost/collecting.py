"""Brings together what all processes of a run have noted, and shows it at the end."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_sandbox.cost.events import RECORDER, Recorder, now
from pytest_sandbox.cost.recording import BAGGAGE, Baggage, Recording, baggage, unpacked
from pytest_sandbox.cost.run import MAIN, OUTCOMES, Case, Failure, Run
from pytest_sandbox.hermetic.escapes.escape import found_in
from pytest_sandbox.options import options_of
from pytest_sandbox.post_mortem.recording import SECTION

_LOG_LINES = 200
"""Lines of each container's log that a page shows."""


def record(config: pytest.Config) -> None:
    """Note what tests cost from now on; where this process reports, show it at the end."""
    options = options_of(config)
    recorder = Recorder(log_lines=0 if options.report is None else _LOG_LINES)
    config.stash[RECORDER] = recorder
    config.pluginmanager.register(Recording(config, recorder), "sandbox-recording")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collecting(config, recorder), "sandbox-collecting")


class Collecting:
    """In the process that reports: pytest's own, or the controller of pytest-xdist."""

    def __init__(self, config: pytest.Config, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._run = Run(now())
        self._running: dict[tuple[str, str], Case] = {}
        self._written = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worker = _worker_of(report)
        packed: Baggage | None = report.__dict__.pop(BAGGAGE, None)
        if packed is not None:
            self._unpack(worker, packed)
        test = self._test(worker, report)
        if packed is not None and packed["uses"]:
            test.uses = packed["uses"]
        stop = report.stop if packed is None else packed["at"]
        self._add(test, report, stop)
        if report.when == "teardown":
            self._running.pop((worker, report.nodeid), None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", None) or {}
        if BAGGAGE in output:
            self._unpack(node.gateway.id, output[BAGGAGE])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._unpack(MAIN, baggage(self._recorder))
        self._run.ended = now()
        path = options_of(self._config).report
        if path is None or not self._run.tests:
            return
        from pytest_sandbox.cost.page import page

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self._run, self._config.rootpath.name), encoding="utf-8")
        self._written = path.as_uri()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from pytest_sandbox.cost.durations import lines

        count = options_of(self._config).durations
        if count is not None:
            title, rows = lines(self._run, count)
            terminalreporter.section(title)
            for row in rows:
                terminalreporter.line(row)
        if self._written:
            terminalreporter.line(f"sandbox report: {self._written}")

    def _unpack(self, worker: str, packed: Baggage) -> None:
        spans, lives = unpacked(packed)
        self._run.spans += [(worker, span) for span in spans]
        self._run.lives += [(worker, life) for life in lives]

    def _test(self, worker: str, report: pytest.TestReport) -> Case:
        key = worker, report.nodeid
        if key not in self._running or (report.when == "setup" and self._running[key].setup):
            self._running[key] = Case(str(report.nodeid), worker)
            self._run.tests.append(self._running[key])
        return self._running[key]

    def _add(self, test: Case, report: pytest.TestReport, stop: float) -> None:
        if not test.start:
            test.start = stop - report.duration
        if report.when in ("setup", "call", "teardown"):
            setattr(test, report.when, getattr(test, report.when) + report.duration)
        category = self._config.hook.pytest_report_teststatus(report=report, config=self._config)[0]
        if category in OUTCOMES:
            test.outcome = max(test.outcome, category, key=OUTCOMES.index)
        test.escapes += found_in(report)
        if report.failed:
            test.outcome = "failed" if test.outcome == "passed" else test.outcome
            sections = [(str(title), str(text)) for title, text in report.sections]
            commands = [text for title, text in sections if title == SECTION]
            test.post_mortem += [text for text in commands if text not in test.post_mortem]
            shown = tuple(section for section in sections if section[0] != SECTION)
            test.failures.append(Failure(report.when or "", report.longreprtext, shown))


def _worker_of(report: pytest.TestReport) -> str:
    """pytest-xdist says it on the report."""
    node = getattr(report, "node", None)
    return MAIN if node is None else str(node.gateway.id)
