"""Coverage of hermetic tests, measured where they run, added to pytest's own.

A test's process writes no data file: what coverage.py's collector flushes there is kept as plain
sets, sent at the end and flushed once more in pytest's process, before pytest-cov or `coverage run`
saves. Data files that subprocesses of tests wrote are carried over as they are. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.hermetic.companion import Companion

if TYPE_CHECKING:
    from coverage import Coverage

_Traced = Collection[Any]
"""Line numbers, or pairs of them where branches are measured."""


class Flushed:
    """Stands in for coverage.CoverageData where a collector flushes: by context and file."""

    def __init__(self) -> None:
        self._context = ""
        self.traced: dict[str, dict[str, set[Any]]] = {}
        self.file_tracers: dict[str, str] = {}

    def set_context(self, context: str | None) -> str:
        before, self._context = self._context, context or ""
        return before

    def add_lines(self, traced: Mapping[str, _Traced]) -> None:
        files = self.traced.setdefault(self._context, {})
        for file, numbers in traced.items():
            files.setdefault(file, set()).update(numbers)

    add_arcs = add_lines

    def add_file_tracers(self, tracers: Mapping[str, str]) -> None:
        self.file_tracers.update(tracers)


class CoverageCompanion(Companion):
    """Registered as a plugin too: what the processes told is added when the last has ended."""

    def __init__(self, measured: Coverage) -> None:
        self._measured: Any = measured
        self._told = Flushed()
        self._data_file = os.path.abspath(measured.config.data_file)
        self._known: frozenset[str] = frozenset()

    def in_zygote(self) -> None:
        collector = self._measured._collector
        context = collector.covdata.set_context(None)
        collector.covdata = Flushed()  # what pytest has not flushed yet, it will itself
        collector.flush_data()
        collector.covdata = Flushed()
        collector.covdata.set_context(context)
        self._known = frozenset(self._data_files())

    def child_ends(self) -> tuple[object, ...]:
        collector = self._measured._collector
        collector.flush_data()
        written = {}
        for name in set(self._data_files()) - self._known:
            with open(name, "rb") as file:
                written[name] = file.read()
            os.unlink(name)
        return collector.covdata.traced, collector.covdata.file_tracers, written

    def child_told(self, told: Any) -> None:
        traced, tracers, written = told
        for context, files in traced.items():
            self._told.set_context(context)
            self._told.add_lines(files)
        self._told.add_file_tracers(tracers)
        for name, data in written.items():
            # One that is there is another worker's, seen through the sandbox, perhaps half-written.
            with suppress(FileExistsError), open(name, "xb") as file:
                file.write(data)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            self._add_what_was_told()

    def _add_what_was_told(self) -> None:
        collector = self._measured._collector
        collector.flush_data()
        data = collector.covdata
        now = data.set_context(None)
        for context, files in self._told.traced.items():
            data.set_context(context)
            (data.add_arcs if collector.branch else data.add_lines)(files)
        data.set_context(now)
        data.add_file_tracers(self._told.file_tracers)
        self._told = Flushed()

    def _data_files(self) -> list[str]:
        """Data files of processes that run beside: `.coverage.HOST.PID.RANDOM`."""
        directory, name = os.path.split(self._data_file)
        try:
            found = os.listdir(directory)
        except OSError:
            return []
        return [os.path.join(directory, each) for each in found if each.startswith(f"{name}.")]


def companion_of(config: pytest.Config) -> CoverageCompanion | None:
    """One for the measurement that is going on; None: none is."""
    from coverage import Coverage

    measured = Coverage.current()
    if measured is None or not hasattr(measured, "_collector"):
        return None
    companion = CoverageCompanion(measured)
    config.pluginmanager.register(companion, "hermetic-coverage")
    return companion
