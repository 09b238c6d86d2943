"""What a test's process reports, as if it happened in pytest's own. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import pytest

from pytest_sandbox.hermetic.traveling_reports import unpacked
from pytest_sandbox.hermetic.warning import HermeticWarning, record


class Replay:
    """Calls the hooks that terminal, junitxml and the like listen to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seen: set[tuple[object, ...]] = set()

    def start(self, item: pytest.Item) -> None:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)

    def finish(self, item: pytest.Item) -> None:
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        item.ihook.pytest_runtest_logreport(report=report)

    def restored(self, data: dict[str, Any]) -> pytest.TestReport:
        """The report that was sent."""
        return unpacked(self._config, data)

    def warning(
        self,
        found: tuple[str, str, str],
        place: tuple[str, int],
        when: str,
        nodeid: str,
        location: object,
        once: bool,
    ) -> None:
        """`found`: module, class and text. `once`: a plain run would show it once, but it comes
        from each process."""
        module, name, text = found
        if once or when != "runtest" or not nodeid:
            if (found, place) in self._seen:
                return
            self._seen.add((found, place))
        message = warnings.WarningMessage(
            _instance(module, name, text), _category(module, name), place[0], place[1]
        )
        record(self._config, message, when, nodeid, location)

    def left(self, item: pytest.Item, left: list[str]) -> None:
        """Say which processes a test has left."""
        what = "a process" if len(left) == 1 else f"{len(left)} processes"
        text = f"{item.nodeid} left {what}, killed now: {'; '.join(left)}"
        path, line, _ = item.location
        message = warnings.WarningMessage(
            HermeticWarning(text), HermeticWarning, str(path), (line or 0) + 1
        )
        record(self._config, message, "runtest", str(item.nodeid), None)


def _category(module: str, name: str) -> type[Warning]:
    """The class of that qualified name; one that only the test's process knows, made anew."""
    try:
        found = getattr(import_module(module), name)
    except Exception:
        found = None
    if isinstance(found, type) and issubclass(found, Warning):
        return found
    return type(name.rpartition(".")[2], (UserWarning,), {"__module__": module})


def _instance(module: str, name: str, text: str) -> Warning:
    try:
        return _category(module, name)(text)
    except Exception:
        return UserWarning(text)
