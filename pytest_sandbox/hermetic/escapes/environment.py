"""What a test left changed of its own process: variables, working directory, umask.

The kernel does not show a process's environment as it changes (proc_pid_environ(5)), so this part
alone looks from within: it is registered with pytest before the fork and works in the tests'
processes only. What it finds travels on the report of the teardown. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple

import pytest

from pytest_sandbox.hermetic.escapes.escape import Escape

ATTRIBUTE: Final = "hermetic_process"
"""Of the teardown's report: [whether the sandbox has no further test, what changed and how]."""
_OF_PYTEST: Final = frozenset(("PYTEST_CURRENT_TEST", "PYTEST_VERSION"))


class State(NamedTuple):
    """A process as tests can change it."""

    environ: Mapping[str, str]
    directory: str
    umask: int

    @classmethod
    def now(cls) -> State:
        try:
            directory = os.getcwd()
        except FileNotFoundError:
            directory = "a directory that was removed"
        umask = os.umask(0)
        os.umask(umask)
        return cls(dict(os.environ), directory, umask)

    def changes_to(self, later: State) -> dict[str, tuple[str, str]]:
        """What differs, by name: how, and what it is now. Values of variables may be secrets: they
        are left out."""
        changes: dict[str, tuple[str, str]] = {}
        if self.environ != later.environ:
            for name in sorted({*self.environ, *later.environ} - _OF_PYTEST):
                if self.environ.get(name) != later.environ.get(name):
                    changes[name] = _verb(name in self.environ, name in later.environ), ""
        if self.directory != later.directory:
            changes["working directory"] = "changed", f"now {later.directory}"
        if self.umask != later.umask:
            changes["umask"] = "changed", f"now {later.umask:03o}"
        return changes


def _verb(before: bool, after: bool) -> str:
    return "changed" if before and after else "set" if after else "unset"


class ProcessWatch:
    """Compares the process with what it was when its first test began."""

    def __init__(self) -> None:
        self._pytest = os.getpid()
        self._before: tuple[int, State] | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        pid = os.getpid()
        if pid != self._pytest and (self._before is None or self._before[0] != pid):
            self._before = pid, State.now()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> Generator[None, None, None]:
        self._last = nextitem is None
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown" and self._before and self._before[0] == os.getpid():
            changes = self._before[1].changes_to(State.now())
            setattr(report, ATTRIBUTE, [self._last, changes])
        return report


def told_by(report: pytest.TestReport) -> tuple[bool, list[Escape]]:
    """(whether the sandbox has no further test, what has changed); a crash leaves no word."""
    last, changes = getattr(report, ATTRIBUTE, (True, {}))
    return bool(last), [
        Escape("environment", verb, name, detail) for name, (verb, detail) in changes.items()
    ]
