"""The commands of docs/registry.md and docs/images.md that name a registry, run against one.

They are taken from the documents word for word. Only names change: the documents' hosts become the
address of a registry on loopback, `3f9a` becomes the beginning of a key that there is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pytest_sandbox import Client, Recipe, Step, connect
from tests.conftest import Registry, Service
from tests.docs.test_documents import REPOSITORY, Block, blocks

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]
HERE = "tests/docs/test_registry_commands.py"
TEST = """
from pytest_sandbox import volume

seeded = volume(files={"rows": "1"}, commands=[["sh", "-c", "cat rows >table"]])

def test_it(seeded):
    pass
"""


def _block(document: str, text: str) -> Block:
    """The block that this file runs and that has `text` in it."""
    found = [
        each
        for each in blocks(REPOSITORY / document)
        if each.marked("run by") == HERE and text in each.code
    ]
    assert len(found) == 1, f"{document}: {text}"
    return found[0]


def _commands(block: Block) -> list[str]:
    return re.findall(r"^\$ (.*?)(?: {2,}#.*)?$", block.code, re.MULTILINE)


class Shell:
    """Runs a document's commands."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.names: dict[str, str] = {}
        """What stands for the names in the documents."""

    def run(self, command: str) -> str:
        """Its output; it must succeed."""
        command = self.meant(command)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def meant(self, text: str) -> str:
        for name, stands_for in self.names.items():
            text = text.replace(name, stands_for)
        return text


@pytest.fixture
def shell(own_service: Service, tmp_path: Path) -> Shell:
    scripts = Path(sys.executable).parent
    environ = {
        **own_service.environ,
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DOCKER_HOST": own_service.host,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Shell(environ)


@pytest.fixture
def client(own_service: Service, busybox_tar: Path) -> Iterator[Client]:
    """With an image `busybox` in the service."""
    with connect(own_service.host, autostart=False) as client:
        client.image_import(busybox_tar, "busybox:latest")
        yield client


@pytest.mark.needs_docker_cli
def test_a_registry_of_this_machines_images(
    own_service: Service, shell: Shell, client: Client
) -> None:
    block = _block("docs/registry.md", "sandboxctl registry serve")
    serve, *others = _commands(block)
    announced = block.code.splitlines()[1]
    command = ["bash", "-c", f"exec {serve} --listen 127.0.0.1:0"]
    with subprocess.Popen(
        command, env=shell.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if " on http" in line)
            found = re.search(r"http://(\S+),", line)
            assert found, line
            shell.names = {"127.0.0.1:5000": found[1]}
            pattern = shell.meant(announced).replace("...", "*")
            pattern = re.sub(r"/home/me/\S+", str(own_service.root), pattern)
            assert fnmatchcase(line.rstrip(), pattern), (line, pattern)
            for other in others:
                shell.run(other)
        finally:
            process.terminate()
    names = [name for image in client.images() for name in image.tags]
    assert f"{found[1]}/team/app:1" in names


def test_a_cache_of_snapshots(
    shell: Shell, own_service: Service, registry: Registry, tmp_path: Path
) -> None:
    shell.names = {"registry.example.org": registry.address}
    block = _block("docs/registry.md", "sandbox_snapshot_cache_push")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pytest.ini").write_text(shell.meant(block.code))
    (project / "test_cache.py").write_text(TEST)
    session = f"cd {project} && {sys.executable} -m pytest -q -p no:cacheprovider"
    assert "1 passed" in shell.run(session)
    with connect(own_service.host, autostart=False) as client:
        (built,) = client.snapshots()
        client.snapshot_remove(built.key)
        fetched = client.snapshot_pull(f"{registry.address}/ci/snapshots", built.key)
    assert fetched.digest == built.digest


def test_snapshots_by_hand(shell: Shell, client: Client, registry: Registry) -> None:
    recipe = Recipe("busybox", "/v", steps=[Step(["touch", "/v/made"])])
    made = client.snapshot(recipe)
    repository = f"{registry.address}/ci/snapshots"
    client.snapshot_push(made.key, f"{repository}:nightly")
    hexadecimal = made.key.partition(":")[2]
    shell.names = {"registry.example.org": registry.address, "3f9a": hexadecimal[:12]}
    push, pull = _commands(_block("docs/registry.md", "snapshot push"))
    shell.run(push)
    client.snapshot_remove(made.key)
    assert made.key in shell.run(pull)
    client.snapshot_remove(made.key)
    assert client.snapshot_pull(repository, made.key).key == made.key


def test_images_are_pulled_and_pushed(shell: Shell, client: Client, registry: Registry) -> None:
    shell.names = {"registry.example.org": registry.address}
    name = f"{registry.address}/team/app"
    client.image_tag("busybox", name, "1")
    shell.run(f"sandboxctl push {name}:1")
    client.image_remove(f"{name}:1")
    client.image_tag("busybox", name, "2")
    pull, push = _commands(_block("docs/images.md", "sandboxctl pull"))
    shell.run(pull)
    shell.run(push)
    client.image_remove(f"{name}:2")
    assert client.pull(f"{name}:2").endswith("team/app:2")
