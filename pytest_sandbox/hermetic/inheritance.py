"""Which results of fixtures the zygote has inherited, and whether they are what a unit's tests must
find. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from pytest_sandbox.hermetic.units import Unit, wider_fixtures


class Inheritance:
    """Noted when a zygote is forked, compared with what this process has now."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._definitions = {
            definition for item in session.items for each in _chains(item) for definition in each
        }
        self._results: dict[Any, object] = {}

    def note(self) -> None:
        """This is what the zygote gets."""
        self._results = {
            definition: definition.cached_result
            for definition in self._definitions
            if definition.cached_result is not None
        }

    def fits(self, unit: Unit) -> bool:
        """Whether the wider fixtures of the unit's tests are set up and inherited, and nothing that
        they use is inherited which this process has taken down since."""
        stale = {
            definition
            for definition, result in self._results.items()
            if definition.cached_result is not result
        }
        return all(
            self._has_wider(item, unit) and not (stale and _uses(item, stale))
            for item in (self._session.items[index] for index in unit.indices)
        )

    def _has_wider(self, item: pytest.Item, unit: Unit) -> bool:
        return all(
            definition.cached_result is not None
            and self._results.get(definition) is definition.cached_result
            for _, definition in wider_fixtures(item, unit.asked.scope)
        )


def _uses(item: pytest.Item, stale: set[Any]) -> bool:
    return any(not stale.isdisjoint(chain) for chain in _chains(item))


def _chains(item: pytest.Item) -> Iterable[Sequence[Any]]:
    """The definitions of each of the test's fixtures, with those that they override."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return list(known.values())
