"""The session's loop of a hermetic run, or its place in that of pytest-xdist's workers.

In a plain session the loop is ours, and everything that wraps a test's protocol runs in the test's
process alone. A worker's loop is xdist's: there the hook for one test is taken over first, and the
wrappers around it, which run in the worker, are made harmless. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_sandbox.hermetic import companions, onlookers
from pytest_sandbox.hermetic.denied import sandboxes_possible, workshop_of
from pytest_sandbox.hermetic.landlocked import confine_forks
from pytest_sandbox.hermetic.runner import Runner
from pytest_sandbox.hermetic.services import are_used, lie_in_service
from pytest_sandbox.hermetic.settings import Asked, asked_of, default_scope, require_full
from pytest_sandbox.hermetic.units import Unit, go_together, node_of, unit_of
from pytest_sandbox.marker import runs_in_image


def prepare(config: pytest.Config) -> None:
    """There will be hermetic tests: what they need is got ready while they are collected."""
    sandboxes_possible(config)


def begin(session: pytest.Session) -> None:
    """The tests are known: see to it that those that ask for it run in sandboxes.

    Raises UsageError for a marker that cannot be used, and where sandboxes are required and not
    possible.
    """
    config = session.config
    if config.pluginmanager.has_plugin("dsession"):
        return  # xdist's workers do it
    asked = [_asked(item, default_scope(config)) for item in session.items]
    if not any(asked):
        return
    denied = sandboxes_possible(config)
    if denied and require_full(config):
        raise pytest.UsageError(f"--hermetic-require=full: {denied}")
    if denied:
        confine_forks(config)
    else:
        onlookers.bring(session, asked)
    companions.gather(config)
    bound = lie_in_service(config) if not denied and are_used(session, asked) else ()
    workshop = None if denied else workshop_of(config)
    runner = Runner(session, workshop, ahead=_has_a_core_to_spare(config), bound=bound)
    in_worker = hasattr(config, "workerinput")
    plugin = WorkersLoop(session, runner, asked) if in_worker else Loop(session, runner, asked)
    config.pluginmanager.register(plugin, "hermetic-loop")


def _asked(item: pytest.Item, default: Any) -> Asked | None:
    if runs_in_image(item):
        return None  # it is as far away there
    try:
        return asked_of(item, default)
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _has_a_core_to_spare(config: pytest.Config) -> bool:
    """Whether a process may be forked while a test runs without slowing it down."""
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    return len(os.sched_getaffinity(0)) > workers


class Loop:
    """The loop of a session that runs its tests itself."""

    def __init__(
        self, session: pytest.Session, runner: Runner, asked: Sequence[Asked | None]
    ) -> None:
        self._session = session
        self._runner = runner
        self._asked = asked

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None  # pytest's own says so
        if session.config.option.collectonly:
            return None
        try:
            first = 0
            while first < len(session.items):
                first = self._run(first)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        finally:
            self._runner.close()
        return True

    def _run(self, first: int) -> int:
        """Run the test, or the unit, that begins there; where the next one begins."""
        unit = self._unit(first)
        if unit is None:
            item = self._session.items[first]
            nextitem = self._item(first + 1)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            return first + 1
        after = unit.indices[-1] + 1
        self._runner.run(unit, self._item(after), following=self._unit(after))
        return after

    def _unit(self, first: int) -> Unit | None:
        if first >= len(self._session.items) or self._asked[first] is None:
            return None
        return unit_of(self._session.items, self._asked, first)

    def _item(self, index: int) -> pytest.Item | None:
        return self._session.items[index] if index < len(self._session.items) else None


class WorkersLoop:
    """The place in the loop of a worker of pytest-xdist."""

    def __init__(
        self, session: pytest.Session, runner: Runner, asked: Sequence[Asked | None]
    ) -> None:
        self._session = session
        self._runner = runner
        self._asked = asked
        self._index = {item: index for index, item in enumerate(session.items)}
        self._pid = os.getpid()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        index = self._index[item]
        asked = self._asked[index]
        if asked is None or os.getpid() != self._pid:
            return None
        self._calm_wrappers(item)
        continued = None
        if nextitem is not None:
            following = self._index[nextitem]
            if go_together(self._session.items, self._asked, index, following):
                continued = following
        unit = Unit(asked, node_of(item, asked.scope), (index,))
        self._runner.run(unit, nextitem, continued=continued)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._runner.close()

    def _calm_wrappers(self, item: pytest.Item) -> None:
        """pytest-timeout has set its alarm in this process, for a test that runs in another."""
        cancel = getattr(item.ihook, "pytest_timeout_cancel_timer", None)
        if cancel is not None:
            cancel(item=item)
        signal.setitimer(signal.ITIMER_REAL, 0)
