"""Puts the escapes of a test together, in pytest's own process, while its sandbox still stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from pytest_sandbox.hermetic.escapes import environment, leftovers
from pytest_sandbox.hermetic.escapes.escape import KINDS, Escape, attach
from pytest_sandbox.hermetic.escapes.settings import ReportSettings
from pytest_sandbox.hermetic.escapes.watch import Watch
from pytest_sandbox.hermetic.escapes.writes import Writes, ignoring
from pytest_sandbox.hermetic.network import HOST
from pytest_sandbox.hermetic.shell import Shell
from pytest_sandbox.hermetic.warning import warn

TITLE = "hermetic report"
_BOUND = frozenset(("bind", "tree", "proc", "sys", "dev"))


class _Plan(NamedTuple):
    """Of a sandbox's plan: the numbers of the mounts that hide what the host has there, the paths
    that something is mounted on, and whose network it is in."""

    fresh: frozenset[str]
    covered: frozenset[str]
    network: str


@dataclass
class _Sandbox:
    """What is known of one: its uppers, and what began with which of its tests."""

    writes: Writes
    left: dict[Escape, str] = field(default_factory=dict)
    counts: tuple[str, ...] = ()
    """Of sockets, as they were when there were none of tests."""


class EscapeWitness:
    """A Witness; see pytest_sandbox.hermetic.witness."""

    def __init__(
        self, config: pytest.Config, settings: ReportSettings, watch: Watch | None
    ) -> None:
        """Without a watcher, neither connections nor names are known."""
        self._config, self._settings, self._watch = config, settings, watch
        self._ignored = ignoring(settings.ignored)
        self._sandboxes: dict[Shell, _Sandbox] = {}
        self._plans: dict[str, _Plan] = {}

    def sandbox_ready(self, shell: Shell, nodeid: str) -> None:
        self._forget_ended()
        plan = self._plan(shell.spec)
        writes = Writes(shell.uppers, shell.layout, plan.fresh, self._ignored, plan.covered)
        sandbox = self._sandboxes[shell] = _Sandbox(writes)
        if self._watch is not None and plan.network != HOST:
            try:
                self._watch.serve_names(shell.pidfd)
            except OSError as error:
                self._go_blind(error)
        sandbox.counts = leftovers.counts_of_sockets(shell.pid)

    def test_began(self, shell: Shell, nodeid: str) -> None:
        return

    def test_ended(
        self, shell: Shell, nodeid: str, reports: Sequence[pytest.TestReport]
    ) -> Sequence[pytest.TestReport]:
        sandbox = self._sandboxes[shell]
        last, changes = environment.told_by(reports[-1])
        inet = leftovers.counts_of_sockets(shell.pid) != sandbox.counts
        left = leftovers.left_processes(shell.pid)
        left += leftovers.left_sockets(shell.pid, inet=inet)
        found = sandbox.writes.fresh()
        found += self._asked_of_network(shell)
        found += _left(sandbox, nodeid, [*left, *changes], last=last)
        if not found:
            return reports
        found.sort(key=lambda escape: KINDS.index(escape.kind))
        attach(reports[-1], found)
        _show(reports, found)
        failing = [escape for escape in found if escape.kind in self._settings.failing]
        if failing:
            _fail(reports, failing)
        return reports

    def sandbox_ends(self, shell: Shell, nodeid: str, failed: bool) -> bool:
        self._sandboxes.pop(shell, None)
        return False

    def _forget_ended(self) -> None:
        """Those that were given back and ended without a word to witnesses."""
        for shell in [each for each in self._sandboxes if each.control.fileno() < 0]:
            del self._sandboxes[shell]

    def _plan(self, spec: str) -> _Plan:
        if spec not in self._plans:
            operations, _, network = json.loads(spec)
            fresh = frozenset(each[1] for each in operations if each[0] == "fresh")
            covered = {each[2] for each in operations if each[0] in ("fresh", "overlay")}
            covered |= {each[1] for each in operations if each[0] in _BOUND}
            self._plans[spec] = _Plan(fresh, frozenset(covered), network)
        return self._plans[spec]

    def _asked_of_network(self, shell: Shell) -> list[Escape]:
        """Nothing of a test that has asked for the machine's network."""
        if self._watch is None:
            return []
        try:
            seen = self._watch.seen(shell.pid)
            return [] if self._plan(shell.spec).network == HOST else seen
        except OSError as error:
            self._go_blind(error)
            return []

    def _go_blind(self, error: OSError) -> None:
        warn(self._config, f"connections and names are no longer seen: {error}")
        self._watch = None


def _left(sandbox: _Sandbox, nodeid: str, now: Iterable[Escape], *, last: bool) -> list[Escape]:
    """What is left when the sandbox's last test is over, each with the test that it began with.

    Before that it may be a fixture's of the class or module, which takes it away in time.
    """
    sandbox.left = {escape: sandbox.left.get(escape, nodeid) for escape in now}
    if not last:
        return []
    return [
        escape if began == nodeid else escape._replace(since=began)
        for escape, began in sandbox.left.items()
    ]


def _show(reports: Sequence[pytest.TestReport], found: Sequence[Escape]) -> None:
    """A section where it is seen, and a property for each kind, for JUnit files."""
    text = "\n".join(f"{escape.kind}: {escape}" for escape in found)
    shown = [report for report in reports if report.failed]
    shown = shown or [report for report in reports if report.when == "call"]
    for report in shown or reports[-1:]:
        report.sections.append((TITLE, text))
    for kind in KINDS:
        if of_kind := [str(escape) for escape in found if escape.kind == kind]:
            reports[-1].user_properties.append((f"hermetic {kind}", "; ".join(of_kind)))


def _fail(reports: Sequence[pytest.TestReport], failing: Sequence[Escape]) -> None:
    """Fail the test, or its teardown where something goes back to an earlier test. One that has
    failed, was skipped or is expected to fail stays what it is."""
    if any(report.failed or hasattr(report, "wasxfail") for report in reports):
        return
    of_another = all(escape.since for escape in failing)
    wanted = "teardown" if of_another else "call"
    for report in reports:
        if report.when == wanted and report.passed:
            lines = "\n".join(f"  {escape.kind}: {escape}" for escape in failing)
            report.outcome = "failed"
            report.longrepr = f"{TITLE}: this is not allowed (hermetic_strict)\n{lines}"
            return
