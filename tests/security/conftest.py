"""Doors into a container: a one-shot run, a container that is created and started, an exec into it.

Whatever holds behind one door must hold behind all of them, under each id map that this user has.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from pytest_sandbox import Client, RunResult, connect

HOST = "host"


class Shell(Protocol):
    """Run a script by `sh -c` inside a container; keywords are those of `Client.run`."""

    def __call__(self, script: str, *, image: str = ..., **options: Any) -> RunResult: ...


class Python(Protocol):
    """Run Python code inside a container of the image `host`; its standard output."""

    def __call__(self, code: str, **options: Any) -> str: ...


@pytest.fixture(scope="session", params=["widest", "single"])
def client(request: pytest.FixtureRequest, service: Any, busybox_tar: Path) -> Iterator[Client]:
    """A client of a service with the widest id map, and of one with a single-id map."""
    base = Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
    environ = {"SANDBOX_IDMAP": "single"} if request.param == "single" else {}
    own = service if request.param == "widest" else type(service)(base, **environ)
    if own is not service:
        own.start()
    with connect(own.host, autostart=False) as connected:
        connected.image_import(busybox_tar, "busybox:latest")
        yield connected
    if own is not service:
        assert own.stop() == 0, own.log.read_text()
    shutil.rmtree(base)


@pytest.fixture(params=["run", "create", "exec"])
def shell(request: pytest.FixtureRequest, client: Client) -> Shell:
    """`sh -c` behind each of the three doors."""
    command = _DOORS[request.param]
    return lambda script, image="busybox:latest", **options: command(
        client, image, ["sh", "-c", script], options
    )


@pytest.fixture(params=["run", "exec"])
def python(request: pytest.FixtureRequest, client: Client) -> Python:
    """This interpreter, inside the image `host`."""
    command = _DOORS[request.param]

    def run(code: str, **options: Any) -> str:
        done = command(client, HOST, [sys.executable, "-I", "-S", "-c", code], options)
        assert done.exit_code == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    return run


def _run(client: Client, image: str, args: list[str], options: dict[str, Any]) -> RunResult:
    return client.run(image, args, **options)


def _create(client: Client, image: str, args: list[str], options: dict[str, Any]) -> RunResult:
    with client.container(image, args, **options) as container:
        container.start()
        code = container.wait()
        return RunResult(code, container.logs(stderr=False), container.logs(stdout=False))


def _exec(client: Client, image: str, args: list[str], options: dict[str, Any]) -> RunResult:
    own = {name: options.pop(name) for name in ("workdir", "user") if name in options}
    with client.container(image, ["sleep", "1000"], **options) as container:
        container.start()
        return container.exec(args, **own)


_DOORS: dict[str, Callable[[Client, str, list[str], dict[str, Any]], RunResult]] = {
    "run": _run,
    "create": _create,
    "exec": _exec,
}


@pytest.fixture
def hostile(client: Client, busybox_tar: Path) -> Callable[..., str]:
    """Import busybox with other entries in it: `hostile("name", member, ...)` gives a reference.

    A member is a TarInfo, or a TarInfo with its content; what it replaces is left out.
    """

    def make(name: str, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> str:
        pairs = [each if isinstance(each, tuple) else (each, b"") for each in members]
        replaced = {info.name for info, _ in pairs}
        made = io.BytesIO()
        with tarfile.open(busybox_tar) as source, tarfile.open(fileobj=made, mode="w") as tar:
            for info in source:
                if not replaced & {info.name, *map(str, Path(info.name).parents)}:
                    tar.addfile(info, source.extractfile(info) if info.isreg() else None)
            for info, content in pairs:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        made.seek(0)
        client.image_import(made, f"hostile-{name}:latest")
        return f"hostile-{name}:latest"

    return make


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that no container may read or change."""
    place = tmp_path / "canary"
    place.mkdir(mode=0o755)
    (place / "secret").write_text("of the host")
    before = place.stat()
    yield place
    assert [entry.name for entry in place.iterdir()] == ["secret"]
    assert (place / "secret").read_text() == "of the host"
    after = place.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
