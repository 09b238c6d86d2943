"""Spans of time that a run spends on its containers, noted as they end; nothing where nobody asked.

Every process that runs tests has one Recorder: pytest itself, each worker of pytest-xdist, each
child of a hermetic run. What it has noted leaves it with the next report.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import pytest

Phase = Literal["pull", "build", "snapshot", "start", "ready", "stop", "setup"]
Kind = Literal["image", "snapshot", "container", "fixture"]

_EPOCH = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since 1970, the same for all processes of this machine.

    Counted on from the start of the process: a test that fakes or sets the clock does not move it.
    """
    return _EPOCH + time.clock_gettime(time.CLOCK_MONOTONIC)


class Span(NamedTuple):
    """One thing that took time."""

    phase: Phase
    kind: Kind
    key: str
    """What is the same for all who share it: an image's name, a snapshot's key, `HOME::FIXTURE`."""
    label: str
    """What a person calls it."""
    scope: str
    """Of the fixture, empty outside of one."""
    start: float
    stop: float
    """Seconds since 1970."""
    own: float
    """Seconds, without those of spans inside it."""
    test: str
    """Node id of the test that ran meanwhile; empty between tests."""


class Life(NamedTuple):
    """One container from its making to its end."""

    id: str
    name: str
    fixture: str
    """Empty for one that a test made by hand."""
    home: str
    """Node id of what the fixture is defined in."""
    scope: str
    test: str
    image: str
    start: float
    stop: float
    """Seconds since 1970; 0 while it is not known."""
    state: str
    """How it was when its fixture ended: `running`, `exit code 1`…"""
    log: str
    """The last lines of it."""


class OpenSpan:
    """A span that lasts as long as the `with` block."""

    def __init__(
        self,
        recorder: Recorder | None,
        phase: Phase,
        kind: Kind,
        key: str,
        label: str,
        scope: str,
        at_least: float,
    ) -> None:
        self._recorder = recorder
        self._about = phase, kind
        self._key, self._label, self._scope = key, label, scope
        self._at_least = at_least
        self._start = 0.0
        self._inside = 0.0

    def about(self, key: str, label: str = "") -> None:
        """What it turned out to be about."""
        self._key, self._label = key, label or self._label

    def __enter__(self) -> Self:
        if self._recorder is not None:
            self._recorder.open_spans().append(self)
            self._start = now()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._recorder is None:
            return
        stop = now()
        outer = self._recorder.open_spans()
        outer.remove(self)
        if stop - self._start < self._at_least and not self._inside:
            return
        if outer:
            outer[-1]._inside += stop - self._start
        own = max(0.0, stop - self._start - self._inside)
        phase, kind = self._about
        self._recorder.note(
            phase, kind, self._key, self._label, self._scope, self._start, stop, own=own
        )


class Recorder:
    """What this process has noted and not handed on yet."""

    wanted = True

    def __init__(self, *, log_lines: int) -> None:
        """`log_lines` of each container's log are kept; 0 for no log."""
        self.log_lines = log_lines
        self.test = ""
        """Node id of the test that runs now."""
        self.fixture = ""
        """Name of the fixture that is set up now."""
        self.home = ""
        """Node id of what that fixture is defined in; empty for one of a plugin."""
        self.settle: Callable[[], None] = lambda: None
        """Notes what is known only later: how containers have ended."""
        self._home = self._owner = os.getpid()
        self._spans: list[Span] = []
        self._lives: list[Life] = []
        self._open = threading.local()

    def span(
        self,
        phase: Phase,
        kind: Kind,
        key: str,
        label: str = "",
        scope: str = "",
        at_least: float = 0.0,
    ) -> OpenSpan:
        """What is shorter than `at_least` seconds, with no span inside, is forgotten."""
        return OpenSpan(self, phase, kind, key, label or key, scope, at_least)

    def note(
        self,
        phase: Phase,
        kind: Kind,
        key: str,
        label: str,
        scope: str,
        start: float,
        stop: float,
        own: float | None = None,
    ) -> None:
        """Add a span that is over."""
        self._leave_to_parent()
        own = stop - start if own is None else own
        self._spans.append(Span(phase, kind, key, label, scope, start, stop, own, self.test))

    def lived(self, life: Life) -> None:
        self._leave_to_parent()
        self._lives.append(life)

    def drain(self) -> tuple[list[Span], list[Life]]:
        """What was noted since the last time."""
        self._leave_to_parent()
        drained = self._spans, self._lives
        self._spans, self._lives = [], []
        return drained

    @property
    def in_child(self) -> bool:
        """Whether this process was forked off the one that began to note."""
        return self._home != os.getpid()

    def open_spans(self) -> list[OpenSpan]:
        """Those of this thread, the innermost last."""
        found: list[OpenSpan] = self._open.__dict__.setdefault("spans", [])
        return found

    def _leave_to_parent(self) -> None:
        """A process that was forked off does not hand on what its parent has noted."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._spans, self._lives = [], []


class _Silent(Recorder):
    """Notes nothing."""

    wanted = False

    def __init__(self) -> None:
        super().__init__(log_lines=0)

    def span(self, *about: object, **more: object) -> OpenSpan:
        return _NOTHING

    def note(self, *about: object, **more: object) -> None:
        pass

    def lived(self, life: Life) -> None:
        pass


_NOTHING = OpenSpan(None, "setup", "fixture", "", "", "", 0.0)
SILENT: Recorder = _Silent()

RECORDER = pytest.StashKey[Recorder]()


def recorder_of(config: pytest.Config) -> Recorder:
    """The recorder of this process; one that does nothing where no option wants it."""
    return config.stash.get(RECORDER, SILENT)
