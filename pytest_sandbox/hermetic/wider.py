"""Fixtures wider than the sandbox: set up once, in pytest's process, and taken down there.

A test's process inherits their values, of any kind, by the fork of the zygote; one that has failed
is inherited as a failure, and fails the test's setup there. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.outcomes import OutcomeException

from pytest_sandbox.hermetic import descriptors
from pytest_sandbox.hermetic.units import Unit, wider_fixtures


class WiderFixtures:
    """What is set up in this process on behalf of hermetic tests."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._state: Any = session._setupstate
        self.descriptors: frozenset[int] = frozenset()
        """Those that fixtures have opened."""

    def set_up(self, unit: Unit) -> tuple[dict[Any, object], tuple[str, str]]:
        """Set up what the unit's tests need. Returns the results by definition, which a zygote
        must have to serve them, and what was written meanwhile to stdout and stderr."""
        needed: dict[Any, object] = {}
        with _captured(self._session.config) as output:
            self._retreat(unit)
            before: frozenset[int] | None = None
            for index in unit.indices:
                item = self._session.items[index]
                for name, definition in wider_fixtures(item, unit.asked.scope):
                    if before is None:
                        before = descriptors.opened()
                    self._set_up(unit, item, name)
                    needed[definition] = definition.cached_result
            if before is not None:
                self.descriptors |= descriptors.opened() - before
        return needed, (output[0], output[1])

    def take_down(self, nextitem: pytest.Item | None) -> None:
        """Take down what the next test does not need. Raises what the teardowns raise."""
        if self._state.stack:
            self._state.teardown_exact(nextitem)

    def _retreat(self, unit: Unit) -> None:
        """Whatever this process has set up for tests outside of sandboxes, no more than what is
        wider than this sandbox may be inherited."""
        chain = unit.outer.listchain() if unit.outer else []
        if list(self._state.stack) != chain[: len(self._state.stack)]:
            self._state.teardown_exact(unit.outer)

    def _set_up(self, unit: Unit, item: pytest.Item, name: str) -> None:
        try:
            assert unit.outer is not None
            self._state.setup(unit.outer)
            # Without the test itself, pytest 9.1 takes this for a request during its teardown.
            self._state.stack[item] = ([], None)
            item._request.getfixturevalue(name)  # type: ignore[attr-defined]
        except (OutcomeException, Exception) as error:
            # It is cached with the fixture, and raised again where the test asks for it.
            if isinstance(error, pytest.exit.Exception):
                raise
        finally:
            self._state.stack.pop(item, None)


@contextmanager
def _captured(config: pytest.Config) -> Iterator[list[str]]:
    """Fills the list, at the end, with what was written to stdout and stderr."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    output = ["", ""]
    if manager is None or not manager.is_globally_capturing():
        yield output
        return
    manager.resume_global_capture()
    try:
        yield output
    finally:
        manager.suspend_global_capture(in_=False)
        output[:] = manager.read_global_capture()
