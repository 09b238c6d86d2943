"""docker, podman, skopeo and our own service push to the registry and pull from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect
from tests.sandboxd.registry_server.conftest import Wire

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def run(*command: str | Path, **environ: str) -> str:
    argv = [str(word) for word in command]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environ})
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def images(
    service: Service, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wire]:
    """A registry over the shared service's state, which has the image busybox."""
    from tests.conftest import Registry

    running = Registry(service.root)
    running.log = tmp_path_factory.mktemp("registry") / "log"
    running.start()
    yield Wire(running.address)
    assert running.stop() == 0, running.log.read_text()


def image_id(service: Service, name: str = "busybox") -> str:
    with connect(service.host, autostart=False) as client:
        return str(client.image_inspect(name)["Id"])


@pytest.mark.parametrize("name", ["busybox", "library/busybox"])
def test_a_local_image_is_served_by_its_names(images: Wire, service: Service, name: str) -> None:
    answer = images("GET", f"/v2/{name}/manifests/latest")
    manifest = answer.json
    digest = answer.headers["docker-content-digest"]
    assert manifest["config"]["digest"] == image_id(service)
    assert images("GET", f"/v2/{name}/manifests/{digest}").body == answer.body
    for blob in (manifest["config"], *manifest["layers"]):
        got = images("GET", f"/v2/{name}/blobs/{blob['digest']}")
        assert (got.status, len(got.body)) == (200, blob["size"])
    assert images("GET", f"/v2/{name}/tags/list").json["tags"] == ["latest"]
    assert "busybox" in images("GET", "/v2/_catalog").json["repositories"]


def test_a_local_image_is_not_deleted_from_here(images: Wire) -> None:
    refused = images("DELETE", "/v2/busybox/manifests/latest")
    assert (refused.status, refused.code) == (405, "UNSUPPORTED")
    assert images("DELETE", "/v2/no/manifests/latest").status == 404
    assert images("HEAD", "/v2/host/manifests/latest").status == 404


def test_what_the_service_removes_is_gone_and_what_it_makes_is_there(
    images: Wire, service: Service
) -> None:
    with connect(service.host, autostart=False) as client:
        client.image_tag("busybox", "made/later", "v1")
        digest = images("HEAD", "/v2/made/later/manifests/v1").headers["docker-content-digest"]
        assert images("GET", f"/v2/made/later/manifests/{digest}").status == 200
        client.image_remove("made/later:v1")
    for which in ("v1", digest):
        assert images("GET", f"/v2/made/later/manifests/{which}").status == 404


def test_a_layer_of_a_local_image_is_mounted_into_a_pushed_one(images: Wire) -> None:
    manifest = images("GET", "/v2/busybox/manifests/latest").json
    for blob in (manifest["config"], *manifest["layers"]):
        target = f"/v2/pushed/mounted/blobs/uploads/?mount={blob['digest']}&from=busybox"
        assert images("POST", target).status == 201
    assert images.push_manifest("pushed/mounted", "v1", manifest).status == 201


@pytest.mark.needs_skopeo
@pytest.mark.needs_umoci
def test_skopeo_and_umoci_take_a_local_image(
    images: Wire, service: Service, tmp_path: Path
) -> None:
    source = f"docker://{images.address}/busybox:latest"
    run("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/layout:bb")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/layout:bb", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/bin/busybox").stat().st_mode & 0o777 == 0o755
    inspected = run("skopeo", "inspect", "--raw", "--tls-verify=false", source)
    assert json.loads(inspected)["config"]["digest"] == image_id(service)


@pytest.mark.needs_skopeo
def test_skopeo_pushes_and_pulls_both_ways(
    images: Wire, registry: Registry, tmp_path: Path
) -> None:
    both = ("--src-tls-verify=false", "--dest-tls-verify=false")
    source = f"docker://{images.address}/busybox:latest"
    copied = f"docker://{registry.address}/team/busybox"
    run("skopeo", "copy", *both, source, f"{copied}:oci")
    run("skopeo", "copy", *both, "--format", "v2s2", source, f"{copied}:docker")
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", copied))["Tags"]
    assert tags == ["docker", "oci"]
    kinds = []
    for tag in tags:
        target = tmp_path / tag
        run("skopeo", "copy", *both, f"{copied}:{tag}", f"dir:{target}")
        kinds.append(json.loads((target / "manifest.json").read_text())["mediaType"])
    assert kinds == [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    ]
    run("skopeo", "delete", "--tls-verify=false", f"{copied}:oci")
    assert Wire(registry.address)("GET", "/v2/team/busybox/manifests/oci").status == 404


@pytest.mark.needs_skopeo
def test_skopeo_logs_in(images: Wire, service_directory: Path) -> None:
    from tests.conftest import Registry

    tokens = service_directory / "tokens"
    tokens.write_text("abcdefghijklmnopqrstuvwx write\n")
    registry = Registry(service_directory / "state", "--token-file", str(tokens))
    registry.start()
    try:
        source = f"docker://{images.address}/busybox:latest"
        target = f"docker://{registry.address}/team/busybox:1"
        command = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
        denied = subprocess.run([*command, source, target], capture_output=True, text=True)
        assert denied.returncode != 0
        run(*command, "--dest-creds", "anybody:abcdefghijklmnopqrstuvwx", source, target)
    finally:
        registry.stop()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for podman, which wants 50 characters at most, and for the sockets of dockerd."""
    path = Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.needs_podman
@pytest.mark.needs_root
def test_podman_pulls_pushes_and_pulls(images: Wire, registry: Registry, short_path: Path) -> None:
    podman = ["podman", "--root", f"{short_path}/root", "--runroot", f"{short_path}/run"]
    podman += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend=none"]
    local, pushed = f"{images.address}/busybox:latest", f"{registry.address}/podman/busybox:1"
    run(*podman, "pull", "-q", "--tls-verify=false", local)
    run(*podman, "push", "-q", "--tls-verify=false", local, pushed)
    before = run(*podman, "image", "inspect", "-f", "{{.Id}}", local)
    run(*podman, "rmi", "-f", local)
    run(*podman, "pull", "-q", "--tls-verify=false", pushed)
    assert run(*podman, "image", "inspect", "-f", "{{.Id}}", pushed) == before
    run(*podman, "rmi", "-f", pushed)
    run(*podman, "system", "migrate")  # ends the process that holds podman's user namespace


@pytest.mark.needs_dockerd
def test_docker_pulls_pushes_and_pulls(
    images: Wire, registry: Registry, service: Service, short_path: Path
) -> None:
    local, pushed = f"{images.address}/busybox:latest", f"{registry.address}/docker/busybox:1"
    with _dockerd(short_path) as docker:
        run(*docker, "pull", "-q", local)
        assert run(*docker, "image", "inspect", "-f", "{{.Id}}", local).strip() == image_id(service)
        run(*docker, "tag", local, pushed)
        run(*docker, "push", "-q", pushed)
        run(*docker, "rmi", local, pushed)
        run(*docker, "pull", "-q", pushed)
        again = run(*docker, "image", "inspect", "-f", "{{.Id}}", pushed).strip()
        assert again == image_id(service)
    with connect(service.host, autostart=False) as client:
        client.pull(pushed)
        assert image_id(service, pushed) == again
        client.image_remove(pushed)


@contextmanager
def _dockerd(work: Path) -> Iterator[list[str]]:
    """A private dockerd without network; `docker` with where it listens."""
    from benchmarks.peers import dockerd

    with dockerd.running(work) as daemon:
        yield [daemon.cli, "-H", daemon.host]


def test_our_own_service_pushes_and_pulls(
    service: Service, busybox: str, registry: Registry
) -> None:
    name = f"{registry.address}/own/busybox:1"
    before = image_id(service)
    with connect(service.host, autostart=False) as client:
        client.image_tag("busybox", f"{registry.address}/own/busybox", "1")
        main = "from pytest_sandbox.cli import main; main()"
        run(sys.executable, "-c", main, "push", name, **service.environ)
        client.image_remove(name)
        client.pull(name)
        assert image_id(service, name) == before
        client.image_remove(name)
    manifest = Wire(registry.address)("GET", "/v2/own/busybox/manifests/1")
    assert manifest.json["config"]["digest"] == before


def test_a_pushed_image_outlives_a_collection_by_the_service(
    own_service: Service, tmp_path: Path
) -> None:
    from tests.conftest import Registry

    registry = Registry(own_service.root)
    registry.start()
    try:
        wire = Wire(registry.address)
        digest = wire.push_image("kept", "v1")
        loose = wire.push_image("loose", "v1", layer=b"loose")
        run(
            sys.executable,
            "-c",
            "from pytest_sandbox import connect; connect().call('POST', '/images/prune')",
            **own_service.environ,
        )
        assert wire("GET", f"/v2/kept/manifests/{digest}").status == 200
        assert wire("DELETE", f"/v2/loose/manifests/{loose}").status == 202
        own_service.stop()
        own_service.start()
        names = {path.name for path in (own_service.root / "blobs/sha256").iterdir()}
        assert digest.removeprefix("sha256:") in names
        assert loose.removeprefix("sha256:") not in names
        (layer,) = wire("GET", "/v2/kept/manifests/v1").json["layers"]
        assert wire("GET", f"/v2/kept/blobs/{layer['digest']}").body == b"a layer"
    finally:
        registry.stop()
