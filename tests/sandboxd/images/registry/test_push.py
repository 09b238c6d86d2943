"""Pushes: against Debian's docker-registry, and against one that refuses what a real one takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sandboxd.errors import BadRequest, Forbidden, NotFound, RegistryError
from sandboxd.images import Images
from sandboxd.images.pushing import PushOptions
from sandboxd.images.reference import Reference
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.images.registry.upload import Uploader
from sandboxd.linux import idmap
from sandboxd.store import Store
from tests.sandboxd.images.registry.scripted import Asked, Reply, ScriptedRegistry

if TYPE_CHECKING:
    from tests.sandboxd.images.registry.conftest import DockerRegistry

Opened = Callable[..., AbstractContextManager[tuple[Store, Images]]]
MakeTar = Callable[..., bytes]
Scripted = Callable[[], AbstractContextManager[ScriptedRegistry]]

pytestmark = pytest.mark.needs_userns

real = pytest.mark.needs_registry


class Told(list[dict[str, Any]]):
    """What a push has said."""

    @property
    def statuses(self) -> list[str]:
        return [line["status"] for line in self if "id" in line]


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def _imported(images: Images, tar: MakeTar, name: str, data: bytes = b"data " * 1000) -> None:
    files = ({"name": "etc", "type": tarfile.DIRTYPE}, {"name": "etc/f", "data": data, "uid": 33})
    images.import_rootfs(io.BytesIO(tar(*files)), name)


def _manifest(name: str, credentials: Credentials | None = None) -> Any:
    reference = Reference.parse(name)
    with RegistryClient(reference, RegistrySettings.load(), credentials) as client:
        return client.manifest(reference.tag)


@real
@pytest.mark.outer
def test_what_was_pushed_is_pulled_as_the_same_image(
    opened: Opened, tar: MakeTar, docker_registry: DockerRegistry, unique: str, tmp_path: Path
) -> None:
    name = f"{docker_registry.authority}/{unique}:1"
    told = Told()
    with opened() as (store, images):
        _imported(images, tar, name)
        (pushed,) = images.push(name, progress=told.append)
        image = images.get(name)
        assert image.digests == (f"{docker_registry.authority}/{unique}@{pushed.digest}",)
        assert told[-1]["aux"] == {"Tag": "1", "Digest": pushed.digest, "Size": pushed.size}
        assert told.statuses[-1] == "Pushed"
        again = Told()
        assert images.push(name, progress=again.append) == [pushed]
        assert again.statuses == ["Preparing", "Layer already exists"]
        assert not list((store.root / "staging").iterdir())
    with opened_elsewhere(tmp_path) as (_, others):
        assert others.pull(name).id == image.id


def opened_elsewhere(base: Path) -> AbstractContextManager[tuple[Store, Images]]:
    """Another machine's store."""
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Any:
        ids = idmap.choose()
        store = Store(base / "elsewhere", ids)
        images = Images(store, ids)
        yield store, images
        images.close()
        store.close()

    return opened()


@real
@pytest.mark.outer
def test_pull_push_pull_keeps_the_digest_and_the_blobs_are_mounted(
    opened: Opened, tar: MakeTar, docker_registry: DockerRegistry, unique: str, tmp_path: Path
) -> None:
    first = f"{docker_registry.authority}/{unique}/first:1"
    second = f"{docker_registry.authority}/{unique}/second"
    with opened() as (_, images):
        _imported(images, tar, first)
        (before,) = images.push(first, options=PushOptions(kind="docker"))
        assert before.media_type == DOCKER_MANIFEST
    with opened_elsewhere(tmp_path) as (_, images):
        image = images.pull(first)
        images.tag(first, second, "x")
        told = Told()
        (after,) = images.push(f"{second}:x", progress=told.append)
        assert after == before
        assert told.statuses == ["Preparing", f"Mounted from {unique}/first"]
        images.remove(image.id, force=True)
        assert images.pull(f"{second}:x").id == image.id


@real
@pytest.mark.outer
def test_all_tags_of_a_repository(
    opened: Opened, tar: MakeTar, docker_registry: DockerRegistry, unique: str
) -> None:
    name = f"{docker_registry.authority}/{unique}"
    with opened() as (_, images):
        _imported(images, tar, f"{name}:1")
        _imported(images, tar, f"{name}:2", b"other")
        assert len(images.push(name)) == 2
        assert _manifest(f"{name}:1").digest != _manifest(f"{name}:2").digest


@real
@pytest.mark.outer
def test_zstd_and_the_format_by_option(
    opened: Opened, tar: MakeTar, docker_registry: DockerRegistry, unique: str
) -> None:
    name = f"{docker_registry.authority}/{unique}:z"
    with opened() as (_, images):
        _imported(images, tar, name)
        images.push(name, options=PushOptions("zstd"))
        (layer,) = _manifest(name).layers
        assert layer.media_type == "application/vnd.oci.image.layer.v1.tar+zstd"
        assert layer.annotations == {}
        images.push(name)
        (layer,) = _manifest(name).layers
        assert layer.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
        with pytest.raises(BadRequest, match="gzip only"):
            images.push(name, options=PushOptions("zstd", "docker"))


@real
@pytest.mark.outer
def test_several_platforms_as_one_index(
    opened: Opened,
    archive: Callable[[dict[str, bytes]], io.BytesIO],
    saved: Callable[..., dict[str, bytes]],
    tar: MakeTar,
    docker_registry: DockerRegistry,
    unique: str,
) -> None:
    name = f"{docker_registry.authority}/{unique}:multi"
    with opened() as (_, images):
        for machine in ("amd64", "arm64"):
            parts = saved(tar({"name": machine, "data": b"x"}), tags=(f"{machine}:1",))
            (config,) = [
                part for part in parts if part.endswith(".json") and part[:8] != "manifest"
            ]
            document = json.loads(parts.pop(config)) | {"architecture": machine}
            text = json.dumps(document).encode()
            renamed = f"{hashlib.sha256(text).hexdigest()}.json"
            manifest = json.loads(parts["manifest.json"])
            manifest[0]["Config"] = renamed
            parts |= {renamed: text, "manifest.json": json.dumps(manifest).encode()}
            images.load(archive(parts))
        (pushed,) = images.push(name, index=["amd64:1", "arm64:1"])
        assert pushed.media_type == OCI_INDEX
        index = _manifest(name)
        assert [str(each.platform.architecture) for each in index.manifests] == ["amd64", "arm64"]
        assert images.pull(name, platform="linux/arm64").id == images.get("arm64:1").id
        with pytest.raises(BadRequest, match="same platform"):
            images.push(name, index=["amd64:1", "amd64:1"])


@real
@pytest.mark.outer
def test_credentials(
    opened: Opened, tar: MakeTar, locked_registry: DockerRegistry, unique: str
) -> None:
    name = f"{locked_registry.authority}/{unique}:1"
    with opened() as (_, images):
        _imported(images, tar, name)
        for wrong in (None, Credentials("alice", "wrong")):
            with pytest.raises(Forbidden, match="push access denied"):
                images.push(name, credentials=wrong)
        right = Credentials(locked_registry.user, locked_registry.password)
        (pushed,) = images.push(name, credentials=right)
        assert _manifest(name, right).digest == pushed.digest


@real
@pytest.mark.needs_skopeo
@pytest.mark.outer
def test_skopeo_reads_what_was_pushed(
    opened: Opened, tar: MakeTar, docker_registry: DockerRegistry, unique: str, tmp_path: Path
) -> None:
    name = f"{docker_registry.authority}/{unique}:1"
    with opened() as (_, images):
        _imported(images, tar, name)
        images.push(name)
        id = images.get(name).id
    target = tmp_path / "copied"
    # It takes itself for root in the namespace, and the system's directories for its own.
    (tmp_path / "default.yaml").write_text(f"default-docker:\n  sigstore: file://{tmp_path}/none\n")
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command = [
        "skopeo",
        "--policy",
        str(tmp_path / "policy.json"),
        "--registries.d",
        str(tmp_path),
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{name}",
        f"dir:{target}",
    ]
    environ = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run(command, check=True, env=environ)
    assert (target / id.removeprefix("sha256:")).exists()


@pytest.mark.outer
def test_what_cannot_be_pushed(opened: Opened, tar: MakeTar) -> None:
    with opened() as (_, images):
        _imported(images, tar, "127.0.0.1:9/app:1")
        with pytest.raises(NotFound, match="does not exist locally with the tag"):
            images.push("127.0.0.1:9/app:2")
        with pytest.raises(Forbidden, match="this machine's own root"):
            images.push("host")
        with pytest.raises(BadRequest, match="digest reference"):
            images.push(f"127.0.0.1:9/app@sha256:{'0' * 64}")
        with pytest.raises(BadRequest, match="gzip and zstd"):
            images.push("127.0.0.1:9/app:1", options=PushOptions("lzma"))


class Uploads:
    """A registry's uploads, as far as `limit` bytes at once and `chunks_to_lose` allow."""

    def __init__(self, registry: ScriptedRegistry, limit: int, chunks_to_lose: int = 0) -> None:
        self.registry, self.limit, self.to_lose = registry, limit, chunks_to_lose
        self.parts = bytearray()
        self.cancelled = 0
        registry.script(self)

    def __call__(self, asked: Asked) -> Reply | None:
        query = parse_qs(urlsplit(asked.path).query)
        if "/blobs/uploads/" not in asked.path:
            return self._other(asked)
        here = {"Location": f"{self.registry.url}/v2/app/blobs/uploads/1?state=a%2Bb"}
        if asked.method == "POST":
            self.parts.clear()
            return Reply(202, headers=here)
        assert query["state"] == ["a+b"]
        if asked.method == "DELETE":
            self.cancelled += 1
            return Reply(204)
        if asked.method == "GET":
            return Reply(204, headers={**here, "Range": f"0-{len(self.parts) - 1}"})
        if len(asked.body) > self.limit:
            return Reply(413, b"too large")
        if asked.method == "PATCH":
            start = int(asked.headers["content-range"].partition("-")[0])
            if start != len(self.parts):
                return Reply(416, headers=here)
            self.parts += asked.body
            if self.to_lose:
                self.to_lose -= 1
                return Reply(500, b"lost")
            return Reply(202, headers=here)
        self.parts += asked.body
        (digest,) = query["digest"]
        assert digest == f"sha256:{hashlib.sha256(self.parts).hexdigest()}"
        self.registry.blobs[digest] = bytes(self.parts)
        return Reply(201)

    def _other(self, asked: Asked) -> Reply | None:
        if asked.method != "PUT":
            return None
        media_type = asked.headers["content-type"]
        self.registry.manifests[asked.path.rpartition("/")[2]] = (media_type, asked.body)
        return Reply(201)


@pytest.mark.outer
@pytest.mark.parametrize("lost", [0, 2])
def test_chunks_where_one_body_is_too_large(
    opened: Opened, tar: MakeTar, scripted: Scripted, lost: int
) -> None:
    with opened() as (_, images), scripted() as registry:
        uploads = Uploads(registry, 1 << 20, lost)
        name = f"{registry.authority}/app:1"
        _imported(images, tar, name, os.urandom(5 << 20))
        images.push(name)
        assert uploads.cancelled == 1
        patches = [len(asked.body) for asked in registry.asked if asked.method == "PATCH"]
        assert len([size for size in patches if size == 1 << 20]) >= 5
        assert _manifest(name).media_type == OCI_MANIFEST
        id = images.get(name).id
        images.remove(name)
        assert images.pull(name).id == id


@pytest.mark.outer
def test_a_registry_that_takes_no_chunk_is_named(
    opened: Opened, tar: MakeTar, scripted: Scripted
) -> None:
    with opened() as (store, images), scripted() as registry:
        Uploads(registry, 100)
        name = f"{registry.authority}/app:1"
        _imported(images, tar, name, os.urandom(2 << 20))
        with pytest.raises(RegistryError, match="refuses 1048576 bytes at once"):
            images.push(name)
        assert "1" not in registry.manifests
        assert len(os.listdir(store.root / "blobs/sha256")) == 1


@pytest.mark.outer
def test_a_registry_that_stores_another_manifest_is_not_believed(
    opened: Opened, tar: MakeTar, scripted: Scripted
) -> None:
    with opened() as (_, images), scripted() as registry:
        Uploads(registry, 1 << 30)
        lie = Reply(201, headers={"Docker-Content-Digest": f"sha256:{'1' * 64}"})
        registry.script(lambda asked: lie if "/manifests/" in asked.path else None)
        name = f"{registry.authority}/app:1"
        _imported(images, tar, name)
        with pytest.raises(RegistryError, match="stored the manifest as"):
            images.push(name)


def test_a_part_of_a_file_can_be_sent_again(scripted: Scripted) -> None:
    data = os.urandom(300_000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with scripted() as registry:
        uploads = Uploads(registry, 1 << 30)
        broken = [Reply(503), Reply(429, headers={"Retry-After": "0"})]
        registry.script(lambda asked: broken.pop() if asked.method == "PUT" and broken else None)
        reference = Reference.parse(f"{registry.authority}/app")
        told: list[int] = []
        with RegistryClient(reference, RegistrySettings.load(), None, push=True) as client:
            blob = Descriptor("", digest, len(data))
            Uploader(client).send(blob, io.BytesIO(data), told.append)
        assert registry.blobs[digest] == data
        assert uploads.cancelled == 0
        assert max(told) == len(data)
