"""The event bus: nothing lost between subscribing and the first event, filters, history."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sandboxd.engine import events as module
from sandboxd.engine.events import Events

ID = "a" * 64


@pytest.fixture
def bus() -> Events:
    return Events()


def publish(bus: Events, action: str, **attributes: str) -> None:
    bus.publish("container", action, ID, {"image": "busybox:latest", "name": "n1", **attributes})


def past(bus: Events, **filters: list[str]) -> list[str]:
    async def scenario() -> list[str]:
        stream = bus.subscribe(1.0, time.time(), filters)
        return [event["Action"] async for event in stream]

    return asyncio.run(scenario())


def test_a_subscriber_gets_what_is_published_before_it_iterates(bus: Events) -> None:
    async def scenario() -> Any:
        stream = bus.subscribe(None, None, {})
        publish(bus, "start")
        async for event in stream:
            return event

    event = asyncio.run(scenario())
    assert event["Type"] == "container"
    assert (event["status"], event["id"], event["from"]) == ("start", ID, "busybox:latest")
    assert event["Actor"] == {"ID": ID, "Attributes": {"image": "busybox:latest", "name": "n1"}}
    assert event["timeNano"] // 1_000_000_000 == event["time"]
    assert event["scope"] == "local"


def test_the_past_is_replayed_and_ends_by_itself(bus: Events) -> None:
    publish(bus, "create")
    publish(bus, "start")
    assert past(bus) == ["create", "start"]


def test_history_is_bounded(bus: Events) -> None:
    for number in range(module.HISTORY + 10):
        publish(bus, f"n{number}")
    assert past(bus)[0] == "n10"


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"event": ["start"]}, True),
        ({"event": ["exec_start"]}, False),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"container": ["n1"]}, True),
        ({"container": [ID[:12]]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["busybox:latest"]}, True),
        ({"image": ["debian"]}, False),
        ({"label": ["role=db"]}, True),
        ({"label": ["role"]}, True),
        ({"label": ["role=web"]}, False),
        ({"unknown": ["x"]}, True),
        ({"event": ["stop", "start"], "container": ["n1"]}, True),
    ],
)
def test_filters(bus: Events, filters: dict[str, list[str]], matches: bool) -> None:
    publish(bus, "start", role="db")
    assert bool(past(bus, **filters)) is matches


def test_an_action_with_details_is_found_by_its_verb(bus: Events) -> None:
    publish(bus, "exec_create: ls")
    assert past(bus, event=["exec_create"]) == ["exec_create: ls"]


def test_a_stream_ends_at_until_and_leaves_the_bus(bus: Events) -> None:
    async def scenario() -> list[Any]:
        return [event async for event in bus.subscribe(None, time.time() + 0.01, {})]

    assert asyncio.run(scenario()) == []
    assert not bus._subscriptions


def test_a_subscriber_that_does_not_read_is_ended(
    bus: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACKLOG", 10)

    async def scenario() -> int:
        stream = bus.subscribe(None, None, {})
        for _ in range(20):
            publish(bus, "start")
        return len([event async for event in stream])

    assert asyncio.run(scenario()) == 10
