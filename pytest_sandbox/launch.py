"""A container on its way: what makes it, starts it and watches it get ready, sent in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_sandbox.client.container import Container
from pytest_sandbox.client.pulls import pull_missing
from pytest_sandbox.client.volume import Volume
from pytest_sandbox.pipeline import Pipeline

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.transport import Request

Listener = int | str
"""A TCP port, or the path of a unix socket, that something in the container will listen on."""


class Launch:
    """Sends everything at once; `made`, `started` and `ready` wait for the answers, in this order.

    Whatever happens in between, the container and the volumes go with the client's lease.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        body: Mapping[str, Any],
        *,
        volumes: Mapping[str, Mapping[str, Any]] | None = None,
        listeners: Sequence[Listener] = (),
        timeout: float,
    ) -> None:
        """`body` is the Engine API's, and so are those of the `volumes`, by their names; the
        listeners get `timeout` seconds each. Raises ServiceUnavailable."""
        self.name = name
        self.volume_names = tuple(volumes or ())
        self.container: Container | None = None
        """Known once it is made."""
        self._client = client
        self._image = str(body.get("Image", ""))
        self._pipeline = Pipeline(client)
        wanted_volumes = [
            _creation(client, "/volumes/create", {"Name": volume, **wanted})
            for volume, wanted in (volumes or {}).items()
        ]
        self._calls = [
            _creation(client, "/containers/create", body, name=name),
            client.request("POST", f"/containers/{name}/start"),
            *(_readiness(client, name, listener, timeout) for listener in listeners),
        ]
        self._listeners = len(listeners)
        self._pipeline.send(*wanted_volumes, *self._calls)

    def made(self) -> tuple[Container, list[Volume]]:
        """The container and its volumes; a missing image is pulled. Raises what creating them
        raises."""
        volumes = [Volume(self._client, self._pipeline.receive()) for _ in self.volume_names]
        try:
            made = self._pipeline.receive()
        except Exception as error:
            pull_missing(self._client, self._image, error)
            made = self._made_again()
        self.container = Container(self._client, made["Id"], self.name)
        return self.container, volumes

    def _made_again(self) -> Any:
        """Send once more what has failed because the image was not there."""
        self._pipeline.drop_answers()
        self._pipeline.send(*self._calls)
        return self._pipeline.receive()

    def started(self) -> None:
        """Return when the command runs. Raises what Container.start raises."""
        self._pipeline.receive()

    def ready(self) -> None:
        """Return when all listeners listen. Raises what Container.ready raises."""
        for _ in range(self._listeners):
            self._pipeline.receive()
        self._pipeline.close()


def _creation(client: Client, path: str, body: Mapping[str, Any], **query: str) -> Request:
    return client.request("POST", path, query, dict(body), leased=True)


def _readiness(client: Client, name: str, listener: Listener, timeout: float) -> Request:
    kind = "tcp" if isinstance(listener, int) else "unix"
    query = {kind: listener, "timeout": timeout}
    return client.request("GET", f"/sandbox/containers/{name}/ready", query)
