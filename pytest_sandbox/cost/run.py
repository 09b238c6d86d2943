"""A test run as a value: its tests, what was waited for, and the containers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_sandbox.cost.events import Kind, Life, Phase, Span
from pytest_sandbox.hermetic.escapes.escape import Escape

MAIN = "main"
"""The worker of a run without pytest-xdist."""
OUTCOMES = ("passed", "skipped", "xfailed", "xpassed", "rerun", "failed", "error")
"""Of tests, the worst last."""
PHASES: tuple[Phase, ...] = ("pull", "build", "snapshot", "start", "ready", "stop")


class Failure(NamedTuple):
    """Why one phase of a test failed, and what was written meanwhile."""

    when: str
    text: str
    sections: tuple[tuple[str, str], ...]


@dataclass
class Case:
    """One test, or one attempt of a test that was run again."""

    nodeid: str
    worker: str
    name: str
    """Its node id in that worker: with several images it is not the same."""
    outcome: str = "passed"
    """One of OUTCOMES."""
    start: float = 0.0
    """Seconds since 1970."""
    setup: float = 0.0
    call: float = 0.0
    teardown: float = 0.0
    """Seconds."""
    uses: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    escapes: list[Escape] = field(default_factory=list)
    post_mortem: list[str] = field(default_factory=list)
    """Commands."""

    @property
    def seconds(self) -> float:
        return self.setup + self.call + self.teardown


@dataclass
class Run:
    """Everything that the reporting process has heard."""

    began: float
    ended: float = 0.0
    """Seconds since 1970."""
    tests: list[Case] = field(default_factory=list)
    spans: list[tuple[str, Span]] = field(default_factory=list)
    """With the worker."""
    lives: list[tuple[str, Life]] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    """What workers run in, where that is an image."""

    def workers(self) -> list[str]:
        """Their names, gw2 before gw10."""
        named = {test.worker for test in self.tests}
        named |= {name for name, _ in self.spans} | {name for name, _ in self.lives}
        return sorted(named, key=lambda name: (len(name), name)) or [MAIN]

    def label(self, worker: str) -> str:
        """What a person calls it."""
        return f"{worker} {self.images[worker]}" if worker in self.images else worker


class Resource(NamedTuple):
    """What one image, snapshot or container fixture cost the run."""

    kind: Kind
    label: str
    home: str
    """Node id of what a fixture is defined in."""
    scope: str
    times: int
    """How many times it was made; images and snapshots are made once."""
    seconds: dict[Phase, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def resources(run: Run) -> list[Resource]:
    """The costliest first.

    What is shared is billed to itself: where several workers waited for the same image or snapshot
    the time counts once, and what a fixture's time includes of it does not count there.
    """
    grouped: dict[tuple[Kind, str, str], list[Span]] = {}
    for _, span in run.spans:
        if span.phase in PHASES:
            scope = span.scope if span.kind == "container" else ""
            grouped.setdefault((span.kind, span.key, scope), []).append(span)
    found = [_resource(kind, scope, spans) for (kind, _, scope), spans in grouped.items()]
    return sorted(_told_apart(found), key=lambda resource: -resource.total)


def _resource(kind: Kind, scope: str, spans: list[Span]) -> Resource:
    seconds: dict[Phase, float] = {}
    for phase in PHASES:
        ours = [span for span in spans if span.phase == phase]
        if ours:
            seconds[phase] = sum(s.own for s in ours) if kind == "container" else _covered(ours)
    made = sum(span.phase == "start" for span in spans) if kind == "container" else 1
    labels = dict.fromkeys(span.label for span in spans)
    home = spans[0].key.rpartition("::")[0] if kind == "container" else ""
    return Resource(kind, ", ".join(labels), home, scope, max(made, 1), seconds)


def _told_apart(found: list[Resource]) -> list[Resource]:
    """Fixtures of one name say where they are defined."""
    names = Counter((each.kind, each.label, each.scope) for each in found)
    return [
        each._replace(label=f"{each.label} of {each.home}")
        if each.home and names[each.kind, each.label, each.scope] > 1
        else each
        for each in found
    ]


def _covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of them lasted, without what was inside them."""
    covered, until = 0.0, 0.0
    for span in sorted(spans, key=lambda span: span.start):
        begin, end = span.start, span.start + span.own
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered
