"""Brings together what all processes of a run have noted, and shows it at the end."""

from __future__ import annotations

from collections.abc import Generator
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
        self._uncollected: set[str] = set()
        self._written = ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        """Take the baggage off before others see the report; the rest once they have named it."""
        worker, name = _worker_of(report), str(report.nodeid)
        packed: Baggage | None = report.__dict__.pop(BAGGAGE, None)
        result = yield
        if packed is not None:
            self._unpack(worker, packed)
        if self._config.pluginmanager.has_plugin("sandbox-matrix"):
            self._note_image(worker, report)
        self._add(self._case(worker, name, report), report, packed)
        return result

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What could not be collected is told once, however many workers have tried."""
        name = str(report.nodeid)
        if report.failed and name not in self._uncollected:
            self._uncollected.add(name)
            case = Case(name, MAIN, name, "error", now())
            case.failures.append(Failure("collection", report.longreprtext, ()))
            self._run.tests.append(case)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", None) or {}
        if BAGGAGE in output:
            self._unpack(node.gateway.id, output[BAGGAGE])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._unpack(MAIN, baggage(self._recorder))
        self._run.ended = now()
        path = options_of(self._config).report
        if path is None or self._config.option.collectonly:
            return
        from pytest_sandbox.cost.page import page

        text = page(self._run, self._config.rootpath.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            self._written = path.as_uri()
        except OSError as error:
            self._written = f"not written: {error}"
            session.exitstatus = session.exitstatus or pytest.ExitCode.INTERNAL_ERROR

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

    def _note_image(self, worker: str, report: pytest.TestReport) -> None:
        from pytest_sandbox.matrix.matrix import PROPERTY

        for key, value in report.user_properties:
            if key == PROPERTY:
                self._run.images[worker] = str(value)

    def _case(self, worker: str, name: str, report: pytest.TestReport) -> Case:
        """The test that the report is about; a setup begins another attempt."""
        key = worker, name
        if key not in self._running or (report.when == "setup" and self._running[key].setup):
            self._running[key] = Case(str(report.nodeid), worker, name)
            self._run.tests.append(self._running[key])
        if report.when == "teardown":
            return self._running.pop(key)
        return self._running[key]

    def _add(self, case: Case, report: pytest.TestReport, packed: Baggage | None) -> None:
        if packed is not None:
            case.uses = packed["uses"] or case.uses
        if not case.start:
            stop = report.stop or now() if packed is None else packed["at"]
            case.start = stop - report.duration
        is_part = hasattr(report, "context")  # a subtest's time is its test's
        if report.when in ("setup", "call", "teardown") and not is_part:
            setattr(case, report.when, getattr(case, report.when) + report.duration)
        status = self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        if status and status[0] in OUTCOMES:
            case.outcome = max(case.outcome, status[0], key=OUTCOMES.index)
        case.escapes += found_in(report)
        if report.failed:
            _tell(case, report)


def _tell(case: Case, report: pytest.TestReport) -> None:
    """Why it failed, and how its state is entered."""
    if case.outcome == "passed":
        case.outcome = "failed"
    sections = [(str(title), str(text)) for title, text in report.sections]
    commands = [text for title, text in sections if title == SECTION]
    case.post_mortem += [text for text in commands if text not in case.post_mortem]
    shown = tuple(section for section in sections if section[0] != SECTION)
    case.failures.append(Failure(report.when or "", report.longreprtext, shown))


def _worker_of(report: pytest.TestReport) -> str:
    """pytest-xdist says it on the report."""
    node = getattr(report, "node", None)
    return MAIN if node is None else str(node.gateway.id)
