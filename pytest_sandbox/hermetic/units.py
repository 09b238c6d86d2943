"""Which tests share a sandbox, and which fixtures are wider than it. PYTEST_DONT_REWRITE"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pytest

from pytest_sandbox.hermetic.settings import Asked, Scope

_WIDER: Final[dict[Scope, frozenset[str]]] = {
    "function": frozenset(("class", "module", "package", "session")),
    "class": frozenset(("module", "package", "session")),
    "module": frozenset(("package", "session")),
    "session": frozenset(),
}


class Unit(NamedTuple):
    """Tests that follow each other in one sandbox, by their indices in `session.items`."""

    asked: Asked
    node: pytest.Item | pytest.Collector
    """What the sandbox is for: the test, its class, its module, the session."""
    indices: tuple[int, ...]

    @property
    def outer(self) -> pytest.Collector | None:
        """The innermost node that is wider than the sandbox; None: there is none."""
        return self.node.parent


def unit_of(items: Sequence[pytest.Item], asked: Sequence[Asked | None], first: int) -> Unit:
    """The tests from `first` on that share its sandbox. It is hermetic."""
    wanted = asked[first]
    assert wanted is not None
    node = node_of(items[first], wanted.scope)
    last = first + 1
    while last < len(items) and go_together(items, asked, last - 1, last):
        last += 1
    return Unit(wanted, node, tuple(range(first, last)))


def go_together(
    items: Sequence[pytest.Item], asked: Sequence[Asked | None], one: int, other: int
) -> bool:
    """Whether these tests, if one comes right after the other, share a sandbox.

    They do not where a wider fixture has another parameter: pytest sets it up once more.
    """
    wanted = asked[one]
    return (
        wanted is not None
        and asked[other] == wanted
        and wanted.scope != "function"
        and node_of(items[one], wanted.scope) is node_of(items[other], wanted.scope)
        and _parameters(items[one], wanted.scope) == _parameters(items[other], wanted.scope)
    )


def _parameters(item: pytest.Item, scope: Scope) -> list[tuple[str, int]]:
    indices = getattr(getattr(item, "callspec", None), "indices", None)
    if not indices:
        return []
    return [(name, indices[name]) for name, _ in wider_fixtures(item, scope) if name in indices]


def node_of(item: pytest.Item, scope: Scope) -> pytest.Item | pytest.Collector:
    """The node that a sandbox of this scope belongs to."""
    if scope == "session":
        return item.session
    if scope == "module":
        # The widest one, so that what other plugins put into a file counts as the file's.
        return item.getparent(pytest.File) or item
    if scope == "class":
        return item.getparent(pytest.Class) or item
    return item


def wider_fixtures(item: pytest.Item, scope: Scope) -> list[tuple[str, Any]]:
    """Name and definition of each fixture of the test that outlives the sandbox, widest first."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    narrowed = getattr(getattr(item, "callspec", None), "_arg2scope", {})
    found = []
    for name in getattr(item, "fixturenames", ()):
        if definitions := known.get(name):
            narrower = narrowed.get(name)
            at = definitions[-1].scope if narrower is None else narrower.value
            if at in _WIDER[scope]:
                found.append((name, definitions[-1]))
    return found
