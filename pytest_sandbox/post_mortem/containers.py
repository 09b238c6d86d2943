"""Keeps the state of failed tests whose fixtures have containers: images of what they wrote, and
archives of their volumes.

In a hermetic test's process, whose files go with its sandbox, it only collects: the keeper in
pytest's own process takes what it has found. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from pytest_sandbox.post_mortem import recording
from pytest_sandbox.post_mortem.copying import TooLarge
from pytest_sandbox.post_mortem.settings import Bounds
from pytest_sandbox.post_mortem.shelf import Shelf
from pytest_sandbox.post_mortem.state import REPORT, VOLUMES, ContainerState, State

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.session import Client

REPOSITORY: Final = "post-mortem"
"""The name of all images that are kept; their tags are random."""
ATTRIBUTE: Final = "sandbox_containers"
"""Of a report: [directory with the archives, as the test's process sees it, [states]]."""
_IN_HERMETIC_TEST: Final = "hermetic-sender"
"""The plugin that only the processes of hermetic tests have."""


class ContainerKeeper:
    """Knows which containers fixtures have; registered with the first of them."""

    def __init__(self, config: pytest.Config, bounds: Bounds) -> None:
        self._config, self._bounds = config, bounds
        self._of_fixtures: dict[str, tuple[str, Container]] = {}
        self._kept_last = ""
        """The test that has been kept; it may fail in several phases."""

    def pytest_sandbox_container_started(
        self, container: Container, request: pytest.FixtureRequest
    ) -> None:
        self._of_fixtures[container.id] = (request.fixturename or "container", container)

    def pytest_sandbox_container_stopping(self, container: Container) -> None:
        self._of_fixtures.pop(container.id, None)

    def pytest_runtest_logstart(self) -> None:
        self._kept_last = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and self._of_fixtures and self._kept_last != item.nodeid:
            self._kept_last = str(item.nodeid)
            if self._config.pluginmanager.has_plugin(_IN_HERMETIC_TEST):
                self._hand_over(report)
            else:
                recording.mention([report], self._keep(report))
        return report

    def _hand_over(self, report: pytest.TestReport) -> None:
        directory = tempfile.mkdtemp(prefix="pytest-of-post-mortem-")
        with suppress(TooLarge, OSError):
            states, _ = self._collect(Path(directory))
            setattr(report, ATTRIBUTE, [directory, [asdict(state) for state in states]])

    def _keep(self, report: pytest.TestReport) -> str:
        """The line for the report."""
        shelf = Shelf()
        try:
            with shelf.staging() as staged:
                (staged / VOLUMES).mkdir(mode=0o700)
                states, missing = self._collect(staged / VOLUMES)
                (staged / REPORT).write_text(recording.text_of([report]))
                state = State(
                    nodeid=str(report.nodeid),
                    when=time.time(),
                    **recording.identity(self._config, os.environ),  # type: ignore[arg-type]
                    containers=tuple(states),
                    left_out=tuple(missing),
                    size=size_of(staged / VOLUMES) + sum(each.size for each in states),
                )
                shelf.publish(staged, state, self._bounds)
        except TooLarge:
            return f"the state is not kept: it is larger than sandbox_keep_size={self._bounds.size}"
        except OSError as error:
            return f"the state is not kept: {error}"
        for _, container in self._of_fixtures.values():
            forget_images(container.client, shelf)
            break
        return recording.command(str(report.nodeid))

    def _collect(self, directory: Path) -> tuple[list[ContainerState], list[str]]:
        """The states of all containers, with their archives in `directory`; what has none.

        Raises TooLarge, OSError.
        """
        from pytest_sandbox.errors import SandboxError

        states, missing = [], []
        for fixture, container in self._of_fixtures.values():
            try:
                states.append(_collect_one(fixture, container, directory, self._bounds.size))
            except SandboxError as error:
                missing.append(f"container {container.name}: {error}")
        return states, missing


def _collect_one(
    fixture: str, container: Container, directory: Path, budget: int
) -> ContainerState:
    about = container.inspect()
    archives = {}
    with _still(container):
        image = f"{REPOSITORY}:{uuid4().hex[:12]}"
        container.commit(image, pause=False)
        for mount in about["Mounts"]:
            if mount["Type"] == "volume" and mount.get("Driver", "local") == "local":
                name = f"{uuid4().hex[:12]}.tar"
                _archive(container, mount["Destination"], directory / name, budget)
                archives[mount["Destination"]] = name
    config, host = about["Config"], about["HostConfig"]
    body = {key: config[key] for key in _KEPT_CONFIG if config.get(key)}
    body["HostConfig"] = {key: host[key] for key in _KEPT_HOST if host.get(key)}
    client = container.client
    size = client.image_inspect(image)["Size"] - client.image_inspect(about["Image"])["Size"]
    return ContainerState(
        fixture,
        container.name,
        image,
        str(config["Image"]),
        body=body,
        volumes=archives,
        command=tuple(config.get("Cmd") or ()),
        size=max(0, size),
    )


_KEPT_CONFIG: Final = ("Env", "WorkingDir", "User", "Hostname", "Labels")
_KEPT_HOST: Final = (
    "CapAdd",
    "CapDrop",
    "Tmpfs",
    "ExtraHosts",
    "ShmSize",
    "SandboxShow",
    "Sysctls",
)


@contextmanager
def _still(container: Container) -> Iterator[None]:
    """Its processes stand still, so that its files and volumes are of one moment."""
    from pytest_sandbox.errors import SandboxError

    try:
        container.client.call("POST", f"/containers/{container.id}/pause")
    except SandboxError:
        yield  # it does not run
        return
    try:
        yield
    finally:
        container.client.call("POST", f"/containers/{container.id}/unpause")


def _archive(container: Container, place: str, target: Path, budget: int) -> None:
    """What is mounted at `place`, as tar. Raises NotFound, Conflict, TooLarge."""
    path = f"/containers/{container.id}/archive"
    written = 0
    with (
        container.client.stream("GET", path, {"path": place}) as answer,
        target.open("xb") as archive,
    ):
        for block in answer:
            written += len(block)
            if written > budget:
                raise TooLarge
            archive.write(block)


def forget_images(client: Client, shelf: Shelf) -> None:
    """Remove the images of states that are kept no more."""
    from pytest_sandbox.errors import SandboxError

    wanted = {each.image for kept in shelf.kept() for each in kept.state.containers}
    for image in client.images():
        for tag in image.tags:
            if tag.startswith(f"{REPOSITORY}:") and tag not in wanted:
                with suppress(SandboxError):  # somebody uses it at this moment
                    client.image_remove(tag)


def take_over(root: str, told: list[Any], target: Path) -> tuple[ContainerState, ...]:
    """What a hermetic test's process has collected, moved to `target`; `root` is its root."""
    directory, states = told
    place = Path(f"{root}{directory}")
    shutil.copytree(place, target)
    shutil.rmtree(place, ignore_errors=True)
    return tuple(ContainerState(**{**each, "command": tuple(each["command"])}) for each in states)


def size_of(directory: Path) -> int:
    """Bytes in the files of a directory."""
    return sum(path.stat().st_size for path in directory.iterdir())
