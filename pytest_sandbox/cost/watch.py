"""The lives of containers: made, started, ended and removed when, and what they wrote last.

When a container is removed nobody waits for it, so the service is asked later, for many at once:
its events tell when each thing happened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.container_state import state_phrase
from pytest_sandbox.cost.events import Life, Recorder, now
from pytest_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.run_client import RunClient

_UNSETTLED_MAX = 150
"""Removed containers whose end was not asked for; the service remembers some 1000 events."""
_LOG_MAX = 16_000
"""Characters of one log."""


class Watch:
    """The lives of one process's containers; registered when the first fixture connects."""

    def __init__(self, client: RunClient, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder
        self._began = now()
        self._owner = os.getpid()
        recorder.settle = self.settle
        self._started: dict[str, Life] = {}
        self._leaving: dict[str, tuple[Life, float]] = {}
        self._known: set[str] = set()
        """Ids of containers whose life is told, or will be."""

    def pytest_sandbox_container_started(
        self, container: Container, request: pytest.FixtureRequest
    ) -> None:
        self._leave_to_parent()
        self._known.add(container.id)
        self._started[container.id] = Life(
            container.id,
            container.name,
            request.fixturename or "container",
            self._recorder.home,
            request.scope,
            self._recorder.test,
            "",
            now(),
            0.0,
            "running",
            "",
        )

    def pytest_sandbox_container_stopping(self, container: Container) -> None:
        life = self._started.pop(container.id, None)
        if life is None:
            return
        if self._recorder.log_lines:
            with suppress(SandboxError, OSError):  # the test has removed it
                life = self._described(container, life)
        self._leaving[container.id] = life, now()
        if len(self._leaving) + len(self._client.made - self._known) >= _UNSETTLED_MAX:
            self.settle()

    def settle(self) -> None:
        """Tell of those that are gone, as the service has noted it."""
        self._leave_to_parent()
        made_by_hand = self._client.made - self._known
        if not self._leaving and not made_by_hand:
            return
        try:
            told = self._events()
        except (SandboxError, OSError):
            told = {}
        for life, left in self._leaving.values():
            times = told.get(life.id, {})
            start, stop = times.get("create", life.start), times.get("destroy", 0.0)
            self._recorder.lived(life._replace(start=start, stop=stop or left))
            if stop > left:
                key = f"{life.home}::{life.fixture}"
                self._recorder.note("stop", "container", key, life.fixture, life.scope, left, stop)
        for id in made_by_hand & told.keys():
            self._by_hand(id, told[id])
        self._known |= made_by_hand
        self._leaving.clear()

    def _leave_to_parent(self) -> None:
        """A process that was forked off tells of the containers that it has made itself."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._known |= self._client.made
            self._leaving.clear()

    def _described(self, container: Container, life: Life) -> Life:
        found = container.inspect()
        log = container.logs(tail=self._recorder.log_lines).decode(errors="replace")
        state, image = state_phrase(found["State"]), found["Config"]["Image"]
        return life._replace(image=image, state=state, log=log[-_LOG_MAX:])

    def _events(self) -> dict[str, dict[str, Any]]:
        """Seconds since 1970 of what happened to containers since the start, by id and verb."""
        filters = {"type": ["container"], "event": ["create", "start", "die", "destroy"]}
        told: dict[str, dict[str, Any]] = {}
        with self._client.events(since=self._began - 1, until=now(), filters=filters) as events:
            for event in events:
                about = told.setdefault(event["id"], {})
                about[event["Action"]] = event["timeNano"] / 1e9
                about.update(event["Actor"]["Attributes"])
        return told

    def _by_hand(self, id: str, told: dict[str, Any]) -> None:
        """A container that a test has made through the client."""
        image, start = str(told.get("image", "")), told.get("create", self._began)
        stop = told.get("destroy", 0.0)
        state = f"exit code {told['exitCode']}" if "exitCode" in told else "running"
        label = f"by hand, of {image}"
        self._recorder.lived(
            Life(id, str(told.get("name", "")), "", "", "", "", image, start, stop, state, "")
        )
        if "start" in told:
            self._recorder.note("start", "container", label, label, "", start, told["start"])
        if stop and "die" in told:
            self._recorder.note("stop", "container", label, label, "", told["die"], stop)
