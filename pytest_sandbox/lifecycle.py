"""A fixture's container from its making to its removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from pytest_sandbox.cost.events import OpenSpan, Phase, recorder_of
from pytest_sandbox.departures import Departures
from pytest_sandbox.hermetic.network import current_network
from pytest_sandbox.run_client import RunClient

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.volume import Volume
    from pytest_sandbox.launch import Launch


def unique_name(fixture: str | None) -> str:
    """A container name that says which fixture it belongs to, and six random digits."""
    return f"{fixture or 'container'}-{uuid4().hex[:6]}"


def adopt(
    request: pytest.FixtureRequest, client: Client, launch: Launch
) -> tuple[Container, list[Volume]]:
    """What the launch makes, started; from now on it is the value of `request`'s fixture.

    It is removed in the fixture's teardown even when it does not start, so that the report of a
    failing setup still finds its log. Raises what making and starting it raises.
    """
    request.addfinalizer(lambda: _leave(request, client, launch))
    with _span("start", request):
        container, volumes = launch.made()
        launch.started()
    request.node.ihook.pytest_sandbox_container_started(container=container, request=request)
    return container, volumes


def await_ready(request: pytest.FixtureRequest) -> OpenSpan:
    """A block in which a fixture waits until its container is ready."""
    return _span("ready", request)


def _span(phase: Phase, request: pytest.FixtureRequest) -> OpenSpan:
    recorder, name = recorder_of(request.config), request.fixturename or "container"
    return recorder.span(phase, "container", f"{recorder.home}::{name}", name, request.scope)


def _leave(request: pytest.FixtureRequest, client: Client, launch: Launch) -> None:
    if launch.container is not None:
        request.node.ihook.pytest_sandbox_container_stopping(
            container=launch.container, request=request
        )
    with _departures_of(client) as departures:
        departures.container(launch.name)
        for name in launch.volume_names:
            departures.volume(name)


def remove_volume(client: Client, volume: Volume) -> None:
    """Remove the volume of a fixture, after the containers that used it."""
    with _departures_of(client) as departures:
        departures.volume(volume.name)


@contextmanager
def _departures_of(client: Client) -> Iterator[Departures]:
    """Where removals go. A client that somebody has put in our client's place removes at once,
    because it does not know what is on its way out."""
    if isinstance(client, RunClient):
        yield client.departures
        if current_network() is not None:
            client.departures.settle()  # the next one in this network may want the same port
    else:
        at_once = Departures(client)
        yield at_once
        at_once.settle()
