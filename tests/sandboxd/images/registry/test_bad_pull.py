"""Registries that break, lie or attack: a clear error, nothing of the half image, and the next
pull works (security anchors, a and b)."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import (
    BadRequest,
    Forbidden,
    NoSpace,
    NoSuchImage,
    RegistryError,
    SandboxError,
)
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.tar import Limits
from sandboxd.linux import mount
from tests.sandboxd.images.registry.scripted import (
    INDEX,
    MANIFEST,
    Asked,
    Reply,
    always,
    digest,
    on,
    partial,
)

pytestmark = [pytest.mark.outer, pytest.mark.needs_userns]

Opened = Callable[..., Any]
Scripted = Callable[..., Any]
Tar = Callable[..., bytes]
Case = Callable[..., Any]


@pytest.fixture
def refused(
    scripted: Scripted, opened: Opened, tar: Tar, nothing_left: Callable[..., bool]
) -> Case:
    """Checks that what `spoil` does to a good image's registry makes the pull fail in that way,
    leaves nothing, and that the image can be pulled once it is mended."""

    def check(
        spoil: Callable[[Any, dict[str, Any]], None],
        error: type[SandboxError] = RegistryError,
        match: str | None = None,
        **options: Any,
    ) -> SandboxError:
        layers = [tar({"name": "a", "data": os.urandom(300_000)}), tar({"name": "b"})]
        with scripted() as registry, opened(**options) as (store, images):
            manifest = registry.add_image(*layers)
            good = dict(registry.blobs), dict(registry.manifests)
            spoil(registry, manifest)
            with pytest.raises(error, match=match) as caught:
                images.pull(f"{registry.authority}/app:1")
            assert nothing_left(store, images)
            registry.scripts.clear()
            registry.blobs, registry.manifests = good
            assert len(images.pull(f"{registry.authority}/app:1").layers) == 2
        return caught.value

    return check


def _swapped(change: Callable[[bytes], bytes], which: str = "layers") -> Callable[..., None]:
    """Replaces a blob's bytes under its old digest."""

    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        found = manifest["layers"][0] if which == "layers" else manifest["config"]
        registry.blobs[found["digest"]] = change(registry.blobs[found["digest"]])

    return spoil


def _rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[..., None]:
    """Changes the manifest of the tag."""

    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        changed = json.loads(json.dumps(manifest))
        change(changed)
        registry.add_manifest(changed, "1")

    return spoil


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :]


def test_a_corrupt_layer(refused: Case) -> None:
    refused(_swapped(_flip), SandboxError, match="digest|damaged")


def test_a_truncated_layer(refused: Case) -> None:
    refused(_swapped(lambda data: data[:-1000]), match="were promised")


def test_a_layer_that_is_too_long(refused: Case) -> None:
    refused(_swapped(lambda data: data + b"\0"), match="were promised")


def test_a_layer_of_another_size_that_is_not_announced(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        blob = manifest["layers"][0]["digest"]
        body = registry.blobs[blob] + b"\0" * 10
        headers = {"Transfer-Encoding": "chunked"}
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        registry.script(always(blob, Reply(body=chunked, headers=headers)))

    refused(spoil)


def test_a_corrupt_config(refused: Case) -> None:
    refused(_swapped(_flip, "config"), match="its digest is")


def test_a_manifest_that_states_another_size(refused: Case) -> None:
    def shrink(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["size"] -= 1

    refused(_rewritten(shrink), match="were promised")


def test_a_layer_that_is_not_what_the_config_says(refused: Case) -> None:
    """The blob is what the manifest says, but uncompressed it is another layer."""

    def exchange(manifest: dict[str, Any]) -> None:
        manifest["layers"].reverse()

    refused(_rewritten(exchange), BadRequest, match="diffID")


def test_a_config_that_names_another_number_of_layers(refused: Case) -> None:
    def drop(manifest: dict[str, Any]) -> None:
        manifest["layers"].pop()

    refused(_rewritten(drop), BadRequest, match="1 layers, but its config names 2")


@pytest.mark.parametrize("first", [0, 99, 10**9])
def test_a_content_range_that_lies_is_not_believed(
    scripted: Scripted, opened: Opened, tar: Tar, first: int
) -> None:
    layer = tar({"name": "a", "data": os.urandom(1 << 20)})
    with scripted() as registry, opened() as (_, images):
        blob = registry.add_image(layer)["layers"][0]["digest"]
        cuts = [500_000]

        def lie(asked: Asked) -> Reply | None:
            if blob not in asked.path:
                return None
            reply = partial(asked, registry.blobs[blob])
            if "Content-Range" in reply.headers:
                size = len(registry.blobs[blob])
                reply.headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            elif cuts:
                reply.cut = cuts.pop()
            return reply

        registry.script(lie)
        # It was read once more from its beginning, without a range.
        assert images.pull(f"{registry.authority}/app:1").layers == (digest(layer),)


def test_a_part_with_a_true_range_and_false_bytes(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        blob = manifest["layers"][0]["digest"]
        data = registry.blobs[blob]

        def lie(asked: Asked) -> Reply | None:
            if blob not in asked.path:
                return None
            reply = partial(asked, data)
            if reply.status == 206:
                reply.body = bytes(len(reply.body))
            else:
                reply.cut = 100_000
            return reply

        registry.script(lie)

    refused(spoil, SandboxError, match="digest|damaged")


def test_a_connection_that_breaks_each_time(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        blob = manifest["layers"][0]["digest"]
        registry.script(always(blob, Reply(body=registry.blobs[blob], cut=0)))

    refused(spoil, match="the connection broke 3 times")


def test_a_bomb(refused: Case) -> None:
    """1000 times its size, refused by what the service allows an image to hold."""

    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        packer = zlib.compressobj(9, wbits=31)
        header = _header("zeros", 100 << 20)
        bomb = packer.compress(header) + packer.compress(bytes(100 << 20)) + packer.flush()
        replaced = json.loads(json.dumps(manifest))
        replaced["layers"][0] = registry.add_blob(bomb, replaced["layers"][0]["mediaType"])
        registry.add_manifest(replaced, "1")

    limits = Limits(size=10 << 20)
    refused(spoil, BadRequest, match="more than 10485760 bytes", limits=limits)


def _header(name: str, size: int) -> bytes:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def test_data_after_the_end_of_the_archive(refused: Case, tar: Tar) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        data = tar({"name": "a"}) + b"hidden" + bytes(506)
        registry.add_image(data, tar({"name": "b"}))

    refused(spoil, BadRequest, match="after its end")


def test_garbage_after_the_compressed_stream(refused: Case, tar: Tar) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        registry.add_image(tar({"name": "a"}), compress=lambda data: gzip.compress(data) + b"more")

    refused(spoil, BadRequest, match="damaged")


def test_a_layer_that_climbs_out(refused: Case, tar: Tar) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        registry.add_image(tar({"name": "../../canary", "data": b"x"}))

    refused(spoil, BadRequest, match="leads out")


def test_a_giant_manifest(refused: Case) -> None:
    big = json.dumps({"schemaVersion": 2, "annotations": {"a": "x" * (5 << 20)}}).encode()
    refused(lambda registry, _: registry.add_manifest(big, "1"), BadRequest, match="longer than")


def test_a_manifest_that_nests_too_deep(refused: Case) -> None:
    deep = b'{"schemaVersion":2,"config":' + b"[" * 200_000
    refused(lambda registry, _: registry.add_manifest(deep, "1"), BadRequest, match="no JSON")


def test_a_giant_config(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        changed = json.loads(json.dumps(manifest))
        changed["config"] = registry.add_blob(b" " * (5 << 20), changed["config"]["mediaType"])
        registry.add_manifest(changed, "1")

    refused(spoil, BadRequest, match="5242880 bytes long")


def test_manifests_that_are_none(
    scripted: Scripted, opened: Opened, nothing_left: Callable[..., bool]
) -> None:
    with scripted() as registry, opened() as (store, images):
        for manifest in _NO_MANIFESTS:
            registry.add_manifest(manifest, "1")
            with pytest.raises(BadRequest):
                images.pull(f"{registry.authority}/app:1")
        assert nothing_left(store, images)


_NO_MANIFESTS = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"schemaVersion":2}',
    b'{"schemaVersion":2,"config":{},"layers":[]}',
    b'{"schemaVersion":2,"config":{"digest":"sha256:../../etc","size":1},"layers":[]}',
    b'{"schemaVersion":2,"config":{"digest":"sha256:%s","size":-1},"layers":[]}' % (b"a" * 64),
    b'{"schemaVersion":2,"config":{"digest":"sha256:%s","size":1e3},"layers":[]}' % (b"a" * 64),
    b'{"schemaVersion":2,"config":{"digest":"sha256:%s","size":true},"layers":1}' % (b"a" * 64),
    b'{"schemaVersion":2,"layers":[],"manifests":[]}',
    b'{"schemaVersion":2,"layers":"x","config":null}',
    b'{"schemaVersion":3}',
]


def test_an_index_that_calls_itself_a_manifest(refused: Case) -> None:
    both = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}).encode()
    refused(
        lambda registry, _: registry.add_manifest(both, "1"),
        BadRequest,
        match="not what its type",
    )


def test_an_artifact_is_no_image(refused: Case) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["artifactType"] = "application/vnd.example.chart"
        manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"

    refused(_rewritten(change), BadRequest, match="artifact of application/vnd.example.chart")


def test_indexes_in_indexes(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        inner = {"mediaType": MANIFEST, **registry.add_manifest(manifest)}
        for _ in range(6):
            inner = registry.add_manifest({"schemaVersion": 2, "manifests": [inner]}, "1", INDEX)

    refused(spoil, BadRequest, match="nested more than 3 deep")


def test_an_index_that_names_itself(refused: Case) -> None:
    def spoil(registry: Any, manifest: dict[str, Any]) -> None:
        claimed = "sha256:" + "a" * 64
        entry = {"mediaType": INDEX, "digest": claimed, "size": 100}
        raw = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        registry.manifests["1"] = registry.manifests[claimed] = (INDEX, raw)

    refused(spoil, match="has the digest")


def test_a_manifest_by_digest_that_is_another(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    with scripted() as registry, opened() as (_, images):
        registry.add_image(tar({"name": "a"}))
        wrong = "sha256:" + "b" * 64
        registry.manifests[wrong] = registry.manifests["1"]
        with pytest.raises(RegistryError, match="has the digest"):
            images.pull(f"{registry.authority}/app@{wrong}")


def test_foreign_urls_are_never_asked(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    """CVE-2020-15157: a layer that names a server of its own."""
    with scripted() as registry, scripted() as other, opened() as (_, images):
        manifest = registry.add_image(tar({"name": "a"}))
        layer = manifest["layers"][0]
        other.blobs[layer["digest"]] = registry.blobs.pop(layer["digest"])
        layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        layer["urls"] = [f"{other.url}/v2/app/blobs/{layer['digest']}"]
        registry.add_manifest(manifest, "1")
        with pytest.raises(RegistryError, match="404"):
            images.pull(f"{registry.authority}/app:1", credentials=Credentials("u", "p"))
        assert other.asked == []


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (400, RegistryError, "status 400"),
        (401, NoSuchImage, "pull access denied for .*may require 'docker login'"),
        (403, NoSuchImage, "pull access denied"),
        (404, NoSuchImage, "manifest for .* not found"),
        (429, RegistryError, "too many requests"),
        (500, RegistryError, "status 500"),
        (503, RegistryError, "status 503"),
    ],
)
def test_what_a_registry_answers_is_told(
    scripted: Scripted, opened: Opened, status: int, error: type[SandboxError], match: str
) -> None:
    body = b'{"errors":[{"code":"SOME","message":"Why \\u001b[31mit is\\u0007 so"}]}'
    with scripted() as registry, opened() as (_, images):
        registry.script(always("/manifests/", Reply(status, body)))
        with pytest.raises(error, match=match) as caught:
            images.pull(f"{registry.authority}/app:1")
        assert "why" in str(caught.value)
        assert "\x1b" not in str(caught.value)
        tries = 3 if status in (429, 500, 503) else 1
        assert len(registry.paths("/manifests/")) == tries


def test_a_registry_that_recovers(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    with scripted() as registry, opened() as (_, images):
        blob = registry.add_image(tar({"name": "a"}))["layers"][0]["digest"]
        registry.script(on("/manifests/", Reply(503), Reply(429, headers={"Retry-After": "0"})))
        registry.script(on(blob, Reply(502), Reply(500)))
        assert images.pull(f"{registry.authority}/app:1").layers


def test_a_wait_that_is_too_long_is_not_waited_for(scripted: Scripted, opened: Opened) -> None:
    with scripted() as registry, opened() as (_, images):
        registry.script(always("/manifests/", Reply(429, headers={"Retry-After": "86400"})))
        with pytest.raises(RegistryError, match="too many requests"):
            images.pull(f"{registry.authority}/app:1")
        assert len(registry.paths("/manifests/")) == 1


def test_no_registry_there(opened: Opened) -> None:
    with opened() as (_, images), pytest.raises(RegistryError, match="refused"):
        images.pull("127.0.0.1:1/app:1")


def test_a_disk_that_is_full_in_the_middle(
    scripted: Scripted,
    opened: Opened,
    tar: Tar,
    nothing_left: Callable[..., bool],
    tmp_path: Path,
) -> None:
    layers = [tar({"name": name, "data": os.urandom(3 << 20)}) for name in ("a", "b", "c")]
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    mount.mount("tmpfs", str(root), "tmpfs", 0, "size=6m,mode=700")
    with scripted() as registry, opened() as (store, images):
        registry.add_image(*layers)
        with pytest.raises(NoSpace) as caught:
            images.pull(f"{registry.authority}/app:1")
        assert caught.value.mend
        assert nothing_left(store, images)
        mount.mount("tmpfs", str(root), "tmpfs", mount.MS_REMOUNT, "size=30m")
        assert len(images.pull(f"{registry.authority}/app:1").layers) == 3
    mount.umount(str(root))


def test_credentials_that_are_refused(scripted: Scripted, opened: Opened) -> None:
    with scripted() as registry, opened() as (_, images):
        headers = {"WWW-Authenticate": 'Basic realm="here"'}
        registry.script(always("/v2/", Reply(401, b"{}", headers)))
        with pytest.raises(Forbidden, match="pull access denied") as caught:
            images.pull(f"{registry.authority}/app:1", credentials=Credentials("eve", "s3cret"))
        assert "docker login" in caught.value.mend
        assert "s3cret" not in str(caught.value)
