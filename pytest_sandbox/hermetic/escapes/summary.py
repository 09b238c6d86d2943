"""The escapes of all tests at the end of the run; with pytest-xdist, of all workers."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_sandbox.hermetic.escapes.escape import KINDS, Escape, found_in
from pytest_sandbox.hermetic.escapes.witness import TITLE

_LINES_MAX = 8
"""Of one test; `-v` shows all."""


class Summary:
    """Collects what the reports carry; registered in the process that talks to the user."""

    def __init__(self) -> None:
        self._found: dict[str, list[Escape]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if escapes := found_in(report):
            self._found.setdefault(report.nodeid, []).extend(escapes)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._found or terminalreporter.verbosity < 0:
            return
        terminalreporter.section(TITLE)
        most = None if terminalreporter.verbosity > 0 else _LINES_MAX
        for nodeid, escapes in self._found.items():
            terminalreporter.line(nodeid)
            for escape in escapes[:most]:
                terminalreporter.line(f"  {escape.kind:12}{escape}")
            if most is not None and len(escapes) > most:
                terminalreporter.line(f"  and {len(escapes) - most} more: -v shows them")
        terminalreporter.line(self._total())

    def _total(self) -> str:
        counts = Counter(escape.kind for escapes in self._found.values() for escape in escapes)
        kinds = ", ".join(f"{kind} {counts[kind]}" for kind in KINDS if counts[kind])
        tests = "1 test" if len(self._found) == 1 else f"{len(self._found)} tests"
        return f"{tests} reached beyond tmp_path: {kinds}"
