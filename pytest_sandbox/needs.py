"""The images that the collected tests need, and what for: read from their fixtures' plans."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pytest_sandbox.marker import marked
from pytest_sandbox.options import options_of
from pytest_sandbox.planned import Plan, is_planned, plan_of

HOST = "host"
_NODES: dict[str, type[pytest.Collector]] = {
    "class": pytest.Class,
    "module": pytest.Module,
    "package": pytest.Package,
}

Needs = dict[str, list[str]]
"""Names of images, sorted, with what each is for: `recipe of volume seeded (test_a.py::test_b)`.
The image `host`, which is always there, is not among them."""


def has_plans(item: pytest.Item) -> bool:
    """Whether a fixture of the test has a plan."""
    return any(is_planned(known[-1].func) for known in _definitions(item).values() if known)


def planned_fixtures(item: pytest.Item) -> list[str]:
    """Names of the fixtures with a plan that the test will use."""
    return [name for name, _, _ in _plans(item.session, item)] if has_plans(item) else []


def needs_of(session: pytest.Session) -> Needs:
    """What the session's tests need."""
    found: Needs = {}
    for item in filter(has_plans, session.items):
        for image, purpose in _needed(session, item):
            purposes = found.setdefault(image, [])
            if purpose not in (known.partition(" (")[0] for known in purposes):
                purposes.append(f"{purpose} ({item.nodeid})")
    return dict(sorted(found.items()))


def _definitions(item: pytest.Item) -> dict[str, Any]:
    """The fixtures of a test by name, the one that counts last; other kinds of items have none."""
    return getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})


def _needed(session: pytest.Session, item: pytest.Item) -> Iterator[tuple[str, str]]:
    options = options_of(session.config)
    for name, definition, plan in _plans(session, item):
        asked = marked(_node(item, definition.scope))
        for image in plan.images(asked, options):
            if not is_host(image):
                yield image, f"{plan.purpose} {name}"


def is_host(image: str) -> bool:
    return image in (HOST, f"{HOST}:latest")


def _plans(session: pytest.Session, item: pytest.Item) -> Iterator[tuple[str, Any, Plan]]:
    """Name, definition and plan of each fixture that the test will use, by name or through one."""
    pending = deque(_definitions(item))
    seen: set[str] = set()
    while pending:
        name = pending.popleft()
        if name in seen:
            continue
        seen.add(name)
        for definition in _chain(session._fixturemanager.getfixturedefs(name, item), name):
            if (plan := plan_of(definition.func)) is not None:
                pending += plan.fixtures
                yield name, definition, plan


def _chain(definitions: Any, name: str) -> Iterable[Any]:
    """The definition that counts, and those that it overrides as long as each asks for the next."""
    for definition in reversed(definitions or ()):
        yield definition
        if name not in definition.argnames:
            return


def _node(item: pytest.Item, scope: str) -> pytest.Item | pytest.Collector:
    """The node whose markers reach a fixture of this scope."""
    if scope == "function":
        return item
    for wanted in (_NODES.get(scope, pytest.Session), pytest.Module):
        if (node := item.getparent(wanted)) is not None:
            return node
    return item.session
