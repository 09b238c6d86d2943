"""`container`, `volume` and `image`: factories of fixtures, assigned at module level.

In a conftest.py or a test module::

    from pytest_sandbox import container, volume

    site = volume(files={"index.html": "hello"})
    web = container(
        command=[sys.executable, "-m", "http.server", "8000", "--directory", "/site"],
        volumes={"/site": "site"},
        ready=8000,
    )

    def test_it(web):
        assert web.exec(["cat", "/site/index.html"]).stdout == b"hello"

Calling a factory only notes down what is wanted; the service hears of it when a test asks for the
fixture. Relative host paths are meant from the file that calls the factory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_sandbox import lifecycle
from pytest_sandbox.call_site import CallSite
from pytest_sandbox.container_plan import ContainerPlan, Ready, Source
from pytest_sandbox.image_plan import ImagePlan
from pytest_sandbox.manners import explained
from pytest_sandbox.planned import plan_of, planned
from pytest_sandbox.volume_plan import Content, VolumePlan, as_commands

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.snapshot import Recipe, Snapshot
    from pytest_sandbox.client.volume import Volume

ScopeName = Literal["session", "package", "module", "class", "function"]
Scope = ScopeName | Callable[[str, pytest.Config], ScopeName]
"""A scope, or a function (fixture_name, config) that says it when tests are collected."""


def image(
    reference: str | None = None,
    *,
    python: str | None = None,
    requirements: Sequence[str] | Path = (),
    scope: Scope = "session",
    name: str | None = None,
) -> Any:
    """A fixture whose value is an image's name, for `sandbox.run` and the like.

    A `reference` is fetched before the first test and pinned by sandbox.lock, as those of
    containers are. With `python`, MAJOR.MINOR or MAJOR.MINOR.PATCH, it is an image of that
    interpreter of this machine (uv's, pyenv's or the system's) on `host`, with the `requirements`
    installed: lines as pip takes them, or the Path of a file of them. It is made once for all who
    want the same::

        app_python = image(python="3.13", requirements=["requests>=2"])
        app = container(app_python, ["python", "-m", "app"])

    Given to `container` it is the image to run. `scope` and `name` as in `pytest.fixture`.
    """
    if isinstance(requirements, str):
        raise TypeError(f"image: requirements are a list of lines: [{requirements!r}, …]")
    wanted = requirements if isinstance(requirements, Path) else tuple(requirements)
    plan = ImagePlan(reference, python, wanted, CallSite.of_caller())

    @planned(lambda: plan)
    def fixture(request: pytest.FixtureRequest, sandbox: Client) -> str:
        with explained(request.config):
            return plan.name(sandbox, request.config)

    fixture.__doc__ = f"The image {reference or f'of Python {python}'}"
    return planned(lambda: plan)(pytest.fixture(scope=scope, name=name)(fixture))


def container(
    image: str | Any | None = None,
    command: Sequence[str] | None = None,
    *,
    volumes: Mapping[str, Source] | None = None,
    env: Mapping[str, str] | None = None,
    ready: Ready | Sequence[Ready] | None = None,
    timeout: float | None = None,
    scope: Scope = "function",
    name: str | None = None,
    **options: Any,
) -> Any:
    """A fixture whose value is a running Container, removed when its scope ends.

    `image`: a reference or what the factory `image` has made; None for the option
    --sandbox-container-image, whose default is `host`: this machine's own root, read-only.
    `command`: a list of arguments; None for the image's own.

    `volumes`: place in the container (`"/data"`, `"/data:ro"`) to the *name* of a volume fixture,
    or to a host path, absolute or with a `/` in it.

    `ready`: what must hold before the test gets the container: a TCP port or the path of a unix
    socket on which something inside listens, a function of the Container that is called after that
    and raises when it is not satisfied, or a list of them. A container that dies is noticed at
    once. `timeout`: seconds for each port or socket, None for --sandbox-timeout.

    `scope` and `name` as in `pytest.fixture`. Further keywords are those of `Client.container`:
    `user`, `workdir`, `show`, `memory`, `tmpfs`, `read_only`…
    """
    if isinstance(command, str):
        raise TypeError(f"container: command is a list of arguments: [{command!r}, …]")
    made = plan_of(image)
    plan = ContainerPlan(
        made if isinstance(made, ImagePlan) else image,
        None if command is None else tuple(command),
        dict(volumes or {}),
        dict(env or {}),
        _conditions(ready),
        timeout,
        options,
        CallSite.of_caller(),
    )

    @planned(lambda: plan)
    def fixture(request: pytest.FixtureRequest, sandbox: Client) -> Container:
        with explained(request.config):
            return plan.start(request, sandbox)

    shown = image if isinstance(image, str) else "an image" if image else "the default image"
    fixture.__doc__ = f"A container of {shown}: {_phrase(command)}"
    return pytest.fixture(scope=scope, name=name)(fixture)


def volume(
    *,
    files: Mapping[str, Content] | None = None,
    commands: Sequence[Sequence[str]] = (),
    image: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str = "",
    target: str = "/volume",
    recipe: Recipe | None = None,
    snapshot: Snapshot | str | None = None,
    scope: Scope = "function",
    name: str | None = None,
) -> Any:
    """A fixture whose value is a Volume that is filled already, removed when its scope ends.

    `files`: path in the volume to its content: bytes, text, or a Path of a host file or directory.
    `commands`: run after that, in `image`, in the volume's directory, which is mounted at `target`
    for them; `env` and `user` are theirs. The result is sealed as a snapshot, once per machine for
    the same arguments and contents; each volume is a copy-on-write clone of it, which costs
    nothing to make.

    Instead: a `recipe` (pytest_sandbox.Recipe), or a `snapshot` that there is. With neither the
    volume is empty. `scope` and `name` as in `pytest.fixture`.
    """
    plan = VolumePlan(
        dict(files or {}),
        as_commands(commands),
        image,
        dict(env or {}),
        user,
        target,
        recipe,
        snapshot,
        CallSite.of_caller(),
    )

    @planned(lambda: plan)
    def fixture(request: pytest.FixtureRequest, sandbox: Client) -> Volume:
        with explained(request.config):
            made = plan.make(sandbox, request.config)
        request.addfinalizer(lambda: lifecycle.remove_volume(sandbox, made))
        return made

    fixture.__doc__ = f"A volume with {len(plan.files)} given files, {len(plan.commands)} commands"
    return pytest.fixture(scope=scope, name=name)(fixture)


def _conditions(ready: Ready | Sequence[Ready] | None) -> tuple[Ready, ...]:
    if ready is None:
        return ()
    return (ready,) if isinstance(ready, int | str) or callable(ready) else tuple(ready)


def _phrase(command: Sequence[str] | None) -> str:
    return "its own command" if command is None else " ".join(command)
