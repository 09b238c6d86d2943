"""What a failing test's report says about its containers and about the service.

One section for each container of this process that there is when the test fails: its state, and
its log since the test began. One for the service: its log since then, and its exit code when it
died. Sections are plain text on the report, so they travel from xdist's workers, and
`--show-capture=no` hides them. States also become properties of the test, for JUnit files.

A passing test pays nothing: logs are read once a test has failed, and cut by their timestamps.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.container_state import state_phrase
from pytest_sandbox.errors import NotFound, SandboxError
from pytest_sandbox.marker import marked
from pytest_sandbox.options import options_of

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.run_state import SandboxRun

LINE_MAX = 2000
"""Characters of one log line that are shown."""
_SERVICE_LOG_MAX = 1 << 18
"""Bytes at the end of the service's log that are searched for what this test has caused."""
_STAMP = len("2026-11-24T20:00:00.000Z")


class FailureReports:
    """Adds the sections; registered with pytest when the first fixture connects."""

    def __init__(self, run: SandboxRun) -> None:
        self._run = run
        self._began = 0.0
        self._of_fixtures: set[str] = set()
        """Ids of the containers that are the value of a fixture now."""

    def pytest_sandbox_container_started(self, container: Container) -> None:
        self._of_fixtures.add(container.id)

    def pytest_sandbox_container_stopping(self, container: Container) -> None:
        self._of_fixtures.discard(container.id)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.when == "setup":
            self._began = call.start
        report = yield
        if report.failed and (lines := _wanted_lines(item)):
            self._describe(item, report, lines)
        return report

    def _describe(self, item: pytest.Item, report: pytest.TestReport, lines: int) -> None:
        try:
            self._describe_service(report, lines)
            for container in self._containers():
                with suppress(NotFound):  # it has removed itself meanwhile
                    state, log = _state_and_log(container, self._began, lines)
                    title = f"container {container.name} ({state}): log since the test began"
                    report.sections.append((title, log))
                    item.user_properties.append((f"container {container.name}", state))
        except (SandboxError, OSError) as error:
            report.sections.append(("sandbox: no logs", str(error)))

    def _describe_service(self, report: pytest.TestReport, lines: int) -> None:
        died = self._run.service_death()
        log = service_log_since(self._run.service_log, self._began)
        if died or log:
            title = f"sandboxd ({died})" if died else "sandboxd"
            section = f"{title}: log since the test began", last_lines(log, lines)
            report.sections.append(section)

    def _containers(self) -> Iterator[Container]:
        """Those of fixtures, and those made by hand through the client, the oldest first."""
        client = self._run.client
        if client.service.running():
            ours = self._of_fixtures | client.made
            yield from (each for each in reversed(client.containers(all=True)) if each.id in ours)


def _wanted_lines(item: pytest.Item) -> int:
    asked = marked(item).log_lines
    return options_of(item.config).log_lines if asked is None else asked


def _state_and_log(container: Container, began: float, lines: int) -> tuple[str, str]:
    state = container.inspect()["State"]
    log = container.logs(since=began, tail=lines + 1).decode(errors="replace")
    return state_phrase(state), last_lines(log, lines)


def last_lines(text: str, count: int) -> str:
    """At most `count` lines from the end, none longer than LINE_MAX, and a word on what is gone."""
    lines = text.splitlines()
    shown = [line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}…" for line in lines[-count:]]
    if len(lines) > count:
        shown.insert(0, f"[earlier lines left out: --sandbox-log-lines={count}]")
    return "\n".join(shown) or "[nothing was written]"


def service_log_since(path: str, began: float) -> str:
    """The part of the service's log that was written from `began`, in seconds since 1970, on.

    Lines begin with `2026-11-24T20:00:00.000Z`; those without a time belong to the line before.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SERVICE_LOG_MAX))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""  # a service that systemd started logs to the journal
    first = datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds")[: _STAMP - 1]
    fresh = (number for number, line in enumerate(lines) if _stamp(line) >= first)
    return "\n".join(lines[next(fresh, len(lines)) :])


def _stamp(line: str) -> str:
    """The time at the beginning of a line, without its Z; empty when there is none."""
    head = line[:_STAMP]
    return head[:-1] if len(head) == _STAMP and head[10] == "T" and head[-1] == "Z" else ""
