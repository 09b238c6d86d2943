"""Removals that no test waits for: the service works on them while the next test runs.

They are carried out in the order in which they were asked for, a container before its volumes.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from pytest_sandbox.pipeline import Pipeline

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.transport import Request

MOST = 16
"""Removals on their way at once: a run that makes containers faster than that is slowed down."""


class Departures:
    """The removals of one client, on one connection.

    A service that is gone has removed everything, and so does the end of the lease: then there is
    nothing to do. A process that was forked off has a connection of its own.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._owner = os.getpid()
        self._pipeline: Pipeline | None = None

    def container(self, name: str) -> None:
        """Kill and remove it, with its anonymous volumes."""
        query = {"force": True, "v": True}
        self._send(self._client.request("DELETE", f"/containers/{name}", query))

    def volume(self, name: str) -> None:
        """Remove it with its content."""
        path = f"/volumes/{quote(name, safe='')}"
        self._send(self._client.request("DELETE", path, {"force": True}))

    def settle(self) -> None:
        """Wait until everything is gone."""
        while (pipeline := self._own()) is not None and pipeline.unanswered:
            self._receive(pipeline)
        self._hang_up()

    def _send(self, request: Request) -> None:
        from pytest_sandbox.errors import ServiceUnavailable

        try:
            pipeline = self._own()
            if pipeline is None and self._client.service.running():
                pipeline = self._pipeline = Pipeline(self._client)
            if pipeline is not None:
                pipeline.send(request)
        except ServiceUnavailable:
            self._hang_up()
        while (pipeline := self._pipeline) is not None and _has_news(pipeline):
            self._receive(pipeline)

    def _own(self) -> Pipeline | None:
        """This process's connection, if it has one."""
        if self._owner != os.getpid():
            self._owner, self._pipeline = os.getpid(), None
        return self._pipeline

    def _receive(self, pipeline: Pipeline) -> None:
        from pytest_sandbox.errors import NotFound, SandboxError, ServiceUnavailable

        try:
            pipeline.receive()
        except NotFound:
            pass  # the test has removed it
        except ServiceUnavailable:
            self._hang_up()
        except SandboxError as error:
            warnings.warn(pytest.PytestWarning(f"sandbox: left behind: {error}"), stacklevel=2)

    def _hang_up(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None


def _has_news(pipeline: Pipeline) -> bool:
    return pipeline.unanswered > MOST or (pipeline.unanswered > 0 and pipeline.has_answer())
