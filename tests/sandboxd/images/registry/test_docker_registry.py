"""Pulls from Debian's docker-registry, of what skopeo has pushed there, through the service."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import Forbidden, NoSuchImage, RegistryError, connect
from pytest_sandbox.client.session import Client

if TYPE_CHECKING:
    from tests.conftest import Service
    from tests.sandboxd.images.registry.conftest import DockerRegistry

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_registry,
    pytest.mark.needs_skopeo,
    pytest.mark.needs_busybox,
]

_OCI = "application/vnd.oci.image"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path) -> Path:
    """An OCI layout with one image, `1`: busybox."""
    base = tmp_path_factory.mktemp("layout")
    (base / "blobs/sha256").mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (base / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    tar = busybox_tar.read_bytes()
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Cmd": ["echo", "from the registry"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), f"{_OCI}.config.v1+json"),
        "layers": [put(gzip.compress(tar, 6, mtime=0), f"{_OCI}.layer.v1.tar+gzip")],
    }
    entry = put(json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (base / "index.json").write_text(json.dumps(index))
    (base / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return base


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


@pytest.fixture
def image(docker_registry: DockerRegistry, layout: Path, client: Client) -> Iterator[str]:
    """The name of an image that the registry has and the service has not."""
    docker_registry.copy_from(layout, "team/busybox:1")
    name = f"{docker_registry.authority}/team/busybox:1"
    yield name
    try:
        client.image_remove(name, force=True)
    except NoSuchImage:
        pass


def test_pull_and_run(client: Client, image: str) -> None:
    assert client.pull(image) == image
    assert client.run(image).stdout == b"from the registry\n"
    assert client.pull(image) == image


def test_a_missing_image_is_pulled_by_what_needs_it(client: Client, image: str) -> None:
    assert client.run(image).stdout == b"from the registry\n"
    client.image_remove(image)
    container = client.container(image).start()
    assert container.wait(30) == 0
    container.remove()
    client.image_remove(image)
    client.pulls_missing = False
    with pytest.raises(NoSuchImage, match="sandboxctl pull"):
        client.run(image)


def test_an_image_that_no_registry_has(client: Client, docker_registry: DockerRegistry) -> None:
    name = f"{docker_registry.authority}/team/none:1"
    with pytest.raises(NoSuchImage, match="not found"):
        client.pull(name)
    with pytest.raises(NoSuchImage, match=r"No such image: .*pulling it failed: .*not found"):
        client.run(name)
    with pytest.raises(
        NoSuchImage, match=r"(?s)pulling it failed: registry 127.0.0.1:1: .*refused"
    ):
        client.container("127.0.0.1:1/none:1")
    with pytest.raises(RegistryError):
        client.pull("127.0.0.1:1/none:1")


def test_the_registry_is_asked_about_an_image(client: Client, image: str) -> None:
    about = client.call("GET", f"/distribution/{image}/json")
    assert about["Descriptor"]["mediaType"] == f"{_OCI}.manifest.v1+json"
    assert about["Platforms"][0]["os"] == "linux"


@pytest.fixture
def locked_image(locked_registry: DockerRegistry, layout: Path, client: Client) -> Iterator[str]:
    locked_registry.copy_from(layout, "team/busybox:1")
    name = f"{locked_registry.authority}/team/busybox:1"
    yield name
    try:
        client.image_remove(name, force=True)
    except NoSuchImage:
        pass


def test_a_registry_that_wants_a_password(
    client: Client, locked_registry: DockerRegistry, locked_image: str, tmp_path: Path
) -> None:
    with pytest.raises(NoSuchImage, match="may require 'docker login'") as caught:
        client.pull(locked_image)
    assert caught.value.mend == f"docker login {locked_registry.authority}"
    with pytest.raises(Forbidden, match="pull access denied"):
        client.pull(locked_image, credentials=("alice", "no"))
    assert client.pull(locked_image, credentials=("alice", "wonderland")) == locked_image


def test_docker_logins_are_used_with_their_helpers(
    client: Client,
    locked_registry: DockerRegistry,
    locked_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nprintf \'{"Username":"alice","Secret":"wonderland"}\'\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(
        json.dumps({"credHelpers": {locked_registry.authority: "test"}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert client.run(locked_image).stdout == b"from the registry\n"


@pytest.fixture
def docker(service: Service, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    environ = {**os.environ, "DOCKER_HOST": service.host, "DOCKER_CONFIG": str(tmp_path / "docker")}
    return lambda *args: subprocess.run(
        ["docker", *args], env=environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.needs_docker_cli
def test_docker_pulls_runs_and_logs_in(
    docker: Callable[..., subprocess.CompletedProcess[str]],
    client: Client,
    image: str,
    locked_registry: DockerRegistry,
    locked_image: str,
) -> None:
    pulled = docker("pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert "Pull complete" in pulled.stdout or "Already exists" in pulled.stdout
    assert f"Status: Downloaded newer image for {image}" in pulled.stdout
    assert "Image is up to date" in docker("pull", image).stdout
    client.image_remove(image)
    ran = docker("run", "--rm", image)
    assert (ran.returncode, ran.stdout) == (0, "from the registry\n"), ran.stderr
    refused = docker("pull", locked_image)
    assert refused.returncode == 1
    assert "pull access denied" in refused.stderr
    where = locked_registry.authority
    assert docker("login", "-u", "alice", "-p", "no", where).returncode == 1
    login = docker("login", "-u", "alice", "-p", "wonderland", where)
    assert "Login Succeeded" in login.stdout, login.stderr
    assert docker("pull", "-q", locked_image).stdout == f"{locked_image}\n"
    missing = docker("pull", f"{image}-none")
    assert missing.returncode == 1
    assert "not found" in missing.stderr


@pytest.mark.needs_docker_py
def test_docker_py_pulls(service: Service, client: Client, image: str) -> None:
    docker = pytest.importorskip("docker")
    with closing(docker.DockerClient(base_url=service.host)) as other:
        assert other.images.pull(image).tags == [image]
        with pytest.raises(docker.errors.NotFound):
            other.images.pull(image.replace("busybox", "none"))
