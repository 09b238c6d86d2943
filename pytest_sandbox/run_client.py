"""The client that the fixture `sandbox` is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack, cast

from pytest_sandbox.autostart import Service
from pytest_sandbox.client.builds import BuildOptions, Context
from pytest_sandbox.client.container import Container
from pytest_sandbox.client.options import ContainerOptions
from pytest_sandbox.client.pulls import Credentials, PullProgress
from pytest_sandbox.client.results import RunResult
from pytest_sandbox.client.session import Client
from pytest_sandbox.client.snapshot import Claim, Recipe, Snapshot
from pytest_sandbox.client.targets import Query
from pytest_sandbox.client.transport import Request
from pytest_sandbox.cost.events import SILENT, Recorder
from pytest_sandbox.departures import Departures
from pytest_sandbox.hermetic.network import current_network
from pytest_sandbox.options import Options


class RunClient(Client):
    """Shows what the options show, and knows what was made through it and what is leaving."""

    def __init__(
        self,
        options: Options,
        label: str,
        named: Callable[[str], str] = lambda image: image,
        recorder: Recorder = SILENT,
    ) -> None:
        """`named` says what to ask the service for instead of an image: what it is pinned to.
        What images and snapshots cost is noted by `recorder`."""
        super().__init__(Service(options.host), label=label)
        self.pulls_missing = not options.offline
        self._named = named
        self._recorder = recorder
        self.made: set[str] = set()
        """Ids of the containers that tests made by hand, gone or not."""
        self.departures = Departures(self)
        self.prepare_body: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None = None
        """From a new container's name and body to the body that is sent: for post mortems."""
        self._show = options.show

    def run(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        **options: Unpack[ContainerOptions],
    ) -> RunResult:
        self._complete(options)
        return super().run(self._named(image), args, stdin=stdin, timeout=timeout, **options)

    def container(
        self,
        image: str,
        args: Sequence[str] | None = None,
        *,
        name: str | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Container:
        self._complete(options)
        return super().container(self._named(image), args, name=name, **options)

    def _complete(self, options: ContainerOptions) -> None:
        options["show"] = [*self._show, *options.get("show", ())]
        if joined := current_network():
            options.setdefault("network", joined)

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        **rest: Any,
    ) -> Request:
        if self.prepare_body is not None and path == "/containers/create":
            body = self.prepare_body(str((query or {}).get("name")), cast(Mapping[str, Any], body))
        return super().request(method, path, query, body, **rest)

    def create_container(self, body: Mapping[str, Any], *, name: str | None = None) -> Container:
        container = super().create_container(body, name=name)
        self.made.add(container.id)
        return container

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        credentials: Credentials | None = None,
        progress: PullProgress | None = None,
    ) -> str:
        with self._recorder.span("pull", "image", reference):
            return super().pull(
                reference, platform=platform, credentials=credentials, progress=progress
            )

    def build(self, context: Context = ".", **options: Unpack[BuildOptions]) -> str:
        with self._recorder.span("build", "image", str(options.get("tag") or context)):
            return super().build(context, **options)

    def snapshot(self, recipe: Recipe) -> Snapshot:
        fixture = self._recorder.fixture
        with self._recorder.span("snapshot", "snapshot", fixture or "recipe") as span:
            made = super().snapshot(recipe)
            span.about(made.key, fixture or made.key)
        return made

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim]:
        label = self._recorder.fixture
        with self._recorder.span("snapshot", "snapshot", key, label), super().claim(key) as claim:
            yield claim

    def volume_remove(self, name: str, force: bool = False) -> None:
        """Removed containers that used the volume are gone before it."""
        self.departures.settle()
        super().volume_remove(name, force)

    def image_remove(self, name: str, force: bool = False) -> list[dict[str, str]]:
        """Removed containers that used the image are gone before it."""
        self.departures.settle()
        return super().image_remove(name, force)
