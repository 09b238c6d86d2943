"""Runs units of hermetic tests: sandboxes, processes and reports brought together.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_sandbox.hermetic import companions, network
from pytest_sandbox.hermetic.crash import crash_report
from pytest_sandbox.hermetic.inheritance import Inheritance
from pytest_sandbox.hermetic.processes import Processes, TestProcess
from pytest_sandbox.hermetic.replay import Replay
from pytest_sandbox.hermetic.shell import Shell
from pytest_sandbox.hermetic.surroundings import Surroundings
from pytest_sandbox.hermetic.units import Unit
from pytest_sandbox.hermetic.watchdog import Limit
from pytest_sandbox.hermetic.wider import WiderFixtures
from pytest_sandbox.hermetic.witness import only_failures, witnesses
from pytest_sandbox.hermetic.workshop import Workshop


class Runner:
    """One for each pytest process. Without a workshop its tests run in plain forks."""

    def __init__(
        self,
        session: pytest.Session,
        workshop: Workshop | None,
        *,
        ahead: bool,
        bound: tuple[str, ...] = (),
    ) -> None:
        """`ahead`: fork the next unit's process while this one's runs. `bound`: paths of the host
        that every sandbox sees as they are."""
        self._session = session
        self._workshop = workshop
        self._ahead = ahead
        self._surroundings = Surroundings(session.config, session.items, bound)
        self._wider = WiderFixtures(session, self._shared_network)
        session.config.pluginmanager.register(self._wider, "hermetic-wider")
        self._replay = Replay(session.config)
        self._witnesses = witnesses(session.config)
        self._processes: Processes | None = None
        self._inherited = Inheritance(session)
        self._waiting: tuple[Unit, TestProcess] | None = None
        """The process that was forked ahead, and for what."""

    def run(
        self,
        unit: Unit,
        nextitem: pytest.Item | None,
        *,
        following: Unit | None = None,
        continued: int | None = None,
    ) -> None:
        """Run the unit's tests. `nextitem`: the test that comes next, whatever it is; `following`:
        the unit that does, if it is known and hermetic; `continued`: the index of the test with
        which this same unit will go on in the next call."""
        output = self._wider.set_up(unit)
        self._bring_up_to_date(unit)
        process = self._process_for(unit)
        if any(output):
            process.tell("wrote", *output)
        left = list(unit.indices)
        while left:
            if process.over:
                process = self._new_process(unit)
            part = left[:1] if self._is_watched else left
            last = len(part) == len(left) and continued is None
            after = [*left[1:], continued][: len(part)]
            self._begin(process, unit, list(zip(part, after, strict=True)), last=last)
            if following is not None and last:
                self._prepare(following)
            left = left[self._follow(process, part) :]
            self._stop_if_told(process)
        if continued is not None and not process.over:
            self._waiting = unit, process
            return
        if self._is_watched and not process.over:
            process.tell("bye")
            self._follow(process, ())
        self._leave(process, reusable=unit.asked.reuse and not process.has_left_some)
        self.take_down(self._session.items[unit.indices[-1]], nextitem)

    def take_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Take down the wider fixtures that `nextitem` does not need; a failure is `item`'s."""
        call = pytest.CallInfo.from_call(
            lambda: self._wider.take_down(nextitem),
            when="teardown",
            reraise=(pytest.exit.Exception, KeyboardInterrupt),
        )
        if call.excinfo is not None:
            # Not by the hook: what plugins noted about the test, they noted in its own process.
            report = pytest.TestReport.from_item_and_call(item, call)
            self._replay.report(item, report)

    def close(self) -> None:
        """End everything that was made for tests."""
        if self._processes is not None:
            self._processes.hang_up()
        if self._workshop is not None:
            self._workshop.hang_up()
        if self._processes is not None:
            self._processes.close()

    def _bring_up_to_date(self, unit: Unit) -> None:
        """A zygote that has the results of the wider fixtures."""
        if self._processes is not None and self._inherited.fits(unit):
            return
        self._forget_waiting()
        if self._processes is not None:
            self._processes.close()
        if self._workshop is not None and self._surroundings.look_again():
            self._workshop.drop_unused()
        for companion in companions.of(self._session.config):
            companion.before_fork(self._wider.descriptors)
        joined = None if self._workshop is None else os.pidfd_open(self._workshop.pid)
        self._processes = Processes(self._session, joined, self._wider.descriptors)
        if joined is not None:
            os.close(joined)
        self._inherited.note()

    def _process_for(self, unit: Unit) -> TestProcess:
        if self._waiting is not None:
            forked_for, process = self._waiting
            if _same_sandbox(forked_for, unit) and not process.over:
                self._waiting = None
                return process
            self._forget_waiting()
        return self._new_process(unit)

    def _new_process(self, unit: Unit) -> TestProcess:
        assert self._processes is not None
        if self._workshop is None:
            return self._processes.fork(None, network.HOST)
        plan = self._surroundings.plan(unit.asked.paths, self._wider.network(unit))
        if plan.network == network.SHARED:
            self._shared_network()
        shell = self._workshop.take(plan, fresh=not unit.asked.reuse)
        for witness in self._witnesses:
            witness.sandbox_ready(shell, str(unit.node.nodeid))
        return self._processes.fork(shell, plan.network)

    def _shared_network(self) -> str | None:
        """What containers join that fixtures wider than a sandbox make."""
        if self._workshop is None:
            return None
        plan = self._surroundings.plan(None, network.OWN)
        return f"pid:{self._workshop.shared_network(plan).pid}"

    def _prepare(self, following: Unit) -> None:
        """Fork the next unit's process now, where nothing that it needs will change before."""
        if not self._ahead or self._waiting is not None:
            return
        if self._inherited.fits(following):
            self._waiting = following, self._new_process(following)

    def _forget_waiting(self) -> None:
        """End the process that was forked ahead, or has run tests of its unit: it does not fit
        what comes."""
        if self._waiting is None:
            return
        _, process = self._waiting
        self._waiting = None
        process.tell("bye")
        if process.nodeid and not process.over:
            self._follow(process, ())  # what it has measured
        self._leave(process, reusable=True)

    def _begin(
        self,
        process: TestProcess,
        unit: Unit,
        pairs: Sequence[tuple[int, int | None]],
        *,
        last: bool,
    ) -> None:
        """Tell the process what to run. It leaves after the `last`, unless somebody looks on."""
        process.nodeid = str(self._session.items[pairs[0][0]].nodeid)
        if process.shell is not None:
            for witness in self._witnesses:
                witness.test_began(process.shell, process.nodeid)
        leaves = last and not self._is_watched
        failed = self._session.testsfailed
        process.tell("run", pairs, failed, tuple(unit.asked), last, leaves)

    def _follow(self, process: TestProcess, part: Sequence[int]) -> int:
        """Replay what the process reports until it has run `part`; how many of them it has."""
        assert self._processes is not None
        items, ran = self._session.items, 0
        reports: list[pytest.TestReport] = []
        shown, started, running = 0, time.time(), False
        while (message := process.next_message(self._processes)) is not None:
            kind, *told = message
            if kind == "start":
                reports, shown, started, running = [], 0, time.time(), True
                self._replay.start(items[told[0]])
            elif kind == "report":
                report = self._replay.restored(told[1])
                process.failed |= report.failed
                reports.append(report)
                if not self._concerns_witnesses(reports):
                    self._replay.report(items[told[0]], report)
                    shown += 1
            elif kind == "finish":
                self._show_witnessed(process, items[told[0]], reports, shown)
                self._replay.finish(items[told[0]])
            elif kind == "ran":
                ran, running = ran + 1, False
                if ran < len(part) and (self._session.shouldfail or self._session.shouldstop):
                    return ran
            elif kind == "stop":
                self._session.shouldfail = self._session.shouldfail or told[0]
                self._session.shouldstop = self._session.shouldstop or told[1]
                return ran
            elif kind == "done":
                return ran
            elif kind == "bye":
                self._hear_companions(told[0])
                return ran
            else:
                self._hear(process, kind, told)
        if ran < len(part):
            if not running:
                self._replay.start(items[part[ran]])
                reports, shown = [], 0
            self._report_crash(process, items[part[ran]], reports, shown, started)
            ran += 1
        return ran

    @property
    def _is_watched(self) -> bool:
        """Whether somebody looks at every test, so that they are run one by one."""
        return not all(map(only_failures, self._witnesses))

    def _concerns_witnesses(self, reports: Sequence[pytest.TestReport]) -> bool:
        return self._is_watched or (
            bool(self._witnesses) and any(report.failed for report in reports)
        )

    def _hear(self, process: TestProcess, kind: str, told: Sequence[Any]) -> None:
        """What is not about a report."""
        if kind == "sync":
            process.tell("go")
        elif kind == "warning":
            self._replay.warning(*told)
        elif kind == "left":
            process.has_left_some = True
            self._replay.left(self._session.items[told[0]], told[1])
        elif kind == "exit":
            raise pytest.exit.Exception(told[0], told[1])
        elif kind == "limit":
            process.limit = Limit(time.monotonic(), told[0])
        elif kind == "interrupt":
            raise KeyboardInterrupt
        elif kind == "broken":
            raise RuntimeError(f"the test's process failed outside of any test:\n{told[0]}")

    def _hear_companions(self, told: Sequence[Any]) -> None:
        for companion, value in zip(companions.of(self._session.config), told, strict=True):
            companion.child_told(value)

    def _show_witnessed(
        self,
        process: TestProcess,
        item: pytest.Item,
        reports: Sequence[pytest.TestReport],
        shown: int,
    ) -> None:
        """Show what has not been `shown` so far, as the witnesses want to have it."""
        if process.shell is not None and self._concerns_witnesses(reports):
            for witness in self._witnesses:
                failed = any(report.failed for report in reports)
                if failed or not only_failures(witness):
                    reports = witness.test_ended(process.shell, str(item.nodeid), reports)
        for report in reports[shown:]:
            process.failed |= report.failed
            self._replay.report(item, report)

    def _report_crash(
        self,
        process: TestProcess,
        item: pytest.Item,
        reports: list[pytest.TestReport],
        shown: int,
        started: float,
    ) -> None:
        assert self._processes is not None
        self._processes.wait_for(process)
        left = self._workshop.left(process.shell) if self._workshop and process.shell else []
        how = process.over + (process.limit.told(process.over) if process.limit else "")
        report = crash_report(item, how, reports, started, left)
        process.failed = True
        self._show_witnessed(process, item, [*reports, report], shown)
        self._replay.finish(item)
        process.has_left_some = True
        self._leave(process, reusable=False)

    def _stop_if_told(self, process: TestProcess) -> None:
        session = self._session
        if session.shouldfail or session.shouldstop:
            self._leave(process, reusable=False)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)

    def _leave(self, process: TestProcess, *, reusable: bool) -> None:
        """Have no more to do with the process; end its sandbox, or keep it for others, as soon as
        the process is out of it."""
        if process.is_left:
            return
        process.is_left = True
        process.close()
        shell, workshop = process.shell, self._workshop
        if shell is None or workshop is None:
            return
        if reusable and not (process.failed and self._witnesses):
            if process.over:
                workshop.give_back(shell)
            else:
                workshop.expect(shell)
                process.dismissed = lambda: workshop.give_back(shell)
        elif not self._is_wanted(shell, process):
            workshop.end(shell, wait=process.has_left_some or not process.over)

    def _is_wanted(self, shell: Shell, process: TestProcess) -> bool:
        """Whether a witness takes the sandbox over."""
        assert self._workshop is not None
        for witness in self._witnesses:
            if witness.sandbox_ends(shell, process.nodeid, process.failed):
                self._workshop.release(shell)
                return True
        return False


def _same_sandbox(one: Unit, other: Unit) -> bool:
    return one.node is other.node and one.asked == other.asked
