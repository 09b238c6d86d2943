"""A fixture's container between its start and its removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container

Ready = int | str | Callable[["Container"], object]
"""One condition: a TCP port, the path of a unix socket, or a check that raises until it is met."""


def unique_name(request: pytest.FixtureRequest) -> str:
    """A container name that says which fixture it is: the fixture's and six random digits."""
    return f"{request.fixturename or 'container'}-{uuid4().hex[:6]}"


def start(request: pytest.FixtureRequest, container: Container) -> None:
    """Start the container of `request`'s fixture, which it is removed with.

    It is removed in the fixture's teardown even when it does not start, so that the report of a
    failing setup still finds its log.
    """
    request.addfinalizer(lambda: _remove(request, container))
    container.start()
    request.node.ihook.pytest_sandbox_container_started(container=container, request=request)


def _remove(request: pytest.FixtureRequest, container: Container) -> None:
    from pytest_sandbox.errors import NotFound

    request.node.ihook.pytest_sandbox_container_stopping(container=container, request=request)
    try:
        container.remove()
    except NotFound:
        pass  # the test has removed it


def await_ready(container: Container, conditions: tuple[Ready, ...], timeout: float) -> None:
    """Wait for each condition in turn.

    Raises Conflict at once, with exit code and last log lines, when the container dies, TimedOut
    after `timeout` seconds, and whatever a check of the user's raises.
    """
    for condition in conditions:
        if isinstance(condition, int):
            container.ready(tcp=condition, timeout=timeout)
        elif isinstance(condition, str):
            container.ready(unix=condition, timeout=timeout)
        else:
            condition(container)
