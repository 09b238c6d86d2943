"""What the factory `container` was asked for, and how it becomes a container that is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest

from pytest_sandbox import lifecycle
from pytest_sandbox.call_site import CallSite
from pytest_sandbox.client.options import ContainerOptions, create_body
from pytest_sandbox.client.volume import Volume
from pytest_sandbox.hermetic.network import current_network
from pytest_sandbox.image_plan import ImagePlan
from pytest_sandbox.launch import Launch, Listener
from pytest_sandbox.marker import Marked, marked
from pytest_sandbox.options import Options, options_of
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.session import Client

Ready = Listener | Callable[["Container"], object]
"""One condition: a TCP port, the path of a unix socket, or a check that raises until it is met."""

Source = str | Path | Volume
"""What is mounted: a volume fixture by its name, a host path (with a `/` if it is a string)."""


@dataclass(frozen=True, eq=False, slots=True)
class ContainerPlan:
    """The arguments of one `container(…)`; `site` is where it was called."""

    image: str | ImagePlan | None
    command: tuple[str, ...] | None
    volumes: Mapping[str, Source]
    env: Mapping[str, str]
    ready: tuple[Ready, ...]
    timeout: float | None
    options: dict[str, Any]
    site: CallSite

    def __post_init__(self) -> None:
        """TypeError or ValueError, at the line of the call, for arguments that cannot work."""
        if not isinstance(self.image, str | ImagePlan | None):
            raise TypeError(f"container: image: {self.image!r} is no image")
        if unknown := self.options.keys() - ContainerOptions.__annotations__.keys():
            raise TypeError(f"container: unknown argument {', '.join(sorted(unknown))}")
        for place, source in self.volumes.items():
            _check_mount(place, source)
        paths = [str(source) for source in self.volumes.values() if _is_host_path(source)]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise ValueError(f"container: volumes: {twice} is mounted twice")
        for condition in self.ready:
            if isinstance(condition, bool) or not (
                isinstance(condition, int | str) or callable(condition)
            ):
                raise TypeError(f"container: ready: {condition!r} is no port, path or function")

    @property
    def purpose(self) -> str:
        return "container"

    @property
    def fixtures(self) -> Iterable[str]:
        mounted = self.volumes.values()
        return [each for each in mounted if isinstance(each, str) and not _is_host_path(each)]

    def images(self, asked: Marked, options: Options) -> Iterable[str]:
        if isinstance(self.image, ImagePlan) and not asked.container_image:
            return self.image.images(asked, options)
        return [asked.container_image or str(self.image or options.container_image)]

    def _image(self, client: Client, config: pytest.Config, asked: Marked) -> str:
        """What to ask the service for."""
        if isinstance(self.image, ImagePlan) and not asked.container_image:
            return self.image.name(client, config)
        (image,) = self.images(asked, options_of(config))
        return Suite.of(config).use(image)

    def start(self, request: pytest.FixtureRequest, client: Client) -> Container:
        """The container, started and ready; it goes with the fixture of `request`."""
        asked, options = marked(request.node), options_of(request.config)
        wanted: ContainerOptions = {
            "hostname": request.fixturename,
            **self.options,  # type: ignore[typeddict-item]
            "volumes": dict(self._mount(request, *pair) for pair in self.volumes.items()),
            "env": {**self.env, **asked.env},
            "show": [*options.show, *self.options.get("show", ())],
        }
        if joined := current_network():
            wanted.setdefault("network", joined)
        launch = Launch(
            client,
            lifecycle.unique_name(request.fixturename),
            create_body(self._image(client, request.config, asked), self.command, wanted),
            listeners=[each for each in self.ready if isinstance(each, int | str)],
            timeout=asked.timeout or self.timeout or options.timeout,
        )
        container, _ = lifecycle.adopt(request, client, launch)
        with lifecycle.await_ready(request):
            launch.ready()
            for check in self.ready:
                if not isinstance(check, int | str):
                    check(container)
        return container

    def _mount(
        self, request: pytest.FixtureRequest, place: str, source: Source
    ) -> tuple[str | Path, str | Volume]:
        """One entry of the client's `volumes`: (host path, place) or (place, Volume)."""
        if isinstance(source, Volume):
            return place, source
        if _is_host_path(source):
            return self.site.resolve(source), place
        volume = request.getfixturevalue(str(source))
        if not isinstance(volume, Volume):
            raise TypeError(f"fixture {source!r} is no volume but {type(volume).__name__}")
        return place, volume


def _is_host_path(source: Source) -> TypeGuard[str | Path]:
    return isinstance(source, Path) or (isinstance(source, str) and "/" in source)


def _check_mount(place: str, source: Source) -> None:
    if not isinstance(place, str) or not place.startswith("/"):
        raise ValueError(f"container: volumes: {place!r} is not an absolute path")
    if not isinstance(source, Source):
        raise TypeError(
            f"container: volumes: {place}: a volume fixture is given by its name, "
            f"a host directory by its path, not as {type(source).__name__}"
        )
