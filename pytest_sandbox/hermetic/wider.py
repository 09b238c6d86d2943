"""Fixtures wider than the sandbox: set up once, in pytest's process, and taken down there.

A test's process inherits their values, of any kind, by the fork of the zygote; one that has failed
is inherited as a failure, and fails the test's setup there. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.outcomes import OutcomeException

from pytest_sandbox.hermetic import descriptors, network
from pytest_sandbox.hermetic.units import Unit, wider_fixtures


class WiderFixtures:
    """What is set up in this process on behalf of hermetic tests."""

    def __init__(
        self, session: pytest.Session, find_shared_network: Callable[[], str | None]
    ) -> None:
        """`find_shared_network`: what containers of wider fixtures join."""
        self._session = session
        self._state: Any = session._setupstate
        self._find_shared_network = find_shared_network
        self._in_shared_network: set[Any] = set()
        """Fixtures whose setup has made a container."""
        self._on_the_way: list[Any] = []
        self.descriptors: frozenset[int] = frozenset()
        """Those that fixtures have opened."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        self._on_the_way.append(fixturedef)
        try:
            return (yield)
        finally:
            self._on_the_way.pop()

    def network(self, unit: Unit) -> str:
        """Whose network the unit's tests are in."""
        if unit.asked.network == network.HOST:
            return network.HOST
        joined = self._in_shared_network and any(
            definition in self._in_shared_network
            for index in unit.indices
            for _, definition in wider_fixtures(self._session.items[index], unit.asked.scope)
        )
        return network.SHARED if joined else network.OWN

    def _find_network(self) -> str | None:
        """A wider fixture makes a container."""
        self._in_shared_network.update(self._on_the_way)
        return self._find_shared_network()

    def set_up(self, unit: Unit) -> tuple[str, str]:
        """Set up what the unit's tests need; what was written meanwhile to stdout and stderr."""
        output = ["", ""]
        wanted = self._wanted(unit)
        self._retreat(unit)
        if any(_may_be_due(*each) for each in wanted):
            before = descriptors.opened()
            with _captured(self._session.config, output), network.joining(self._find_network):
                for item, name, _ in wanted:
                    self._set_up(unit, item, name)
            self.descriptors |= descriptors.opened() - before
        return output[0], output[1]

    def _wanted(self, unit: Unit) -> list[tuple[pytest.Item, str, Any]]:
        """Each wider fixture of the unit once, and a test that asks for it."""
        found: dict[Any, tuple[pytest.Item, str, Any]] = {}
        for index in unit.indices:
            item = self._session.items[index]
            for name, definition in wider_fixtures(item, unit.asked.scope):
                found.setdefault(definition, (item, name, definition))
        return list(found.values())

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


def _may_be_due(item: pytest.Item, name: str, definition: Any) -> bool:
    """Whether the fixture is not set up, or perhaps with another parameter."""
    indices = getattr(getattr(item, "callspec", None), "indices", {})
    return definition.cached_result is None or name in indices


@contextmanager
def _captured(config: pytest.Config, output: list[str]) -> Iterator[None]:
    """Fills the list, at the end, with what was written to stdout and stderr."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    if manager is None or not manager.is_globally_capturing():
        yield
        return
    manager.resume_global_capture()
    try:
        yield
    finally:
        manager.suspend_global_capture(in_=False)
        output[:] = manager.read_global_capture()
