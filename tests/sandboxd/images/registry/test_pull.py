"""Pulls from a scripted registry: what is fetched, what is not, and what is told meanwhile."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import Forbidden, NotFound, Unavailable
from sandboxd.images.compressed import CompressedLayers
from sandboxd.images.pulled import PulledManifests
from tests.sandboxd.images.registry.scripted import (
    INDEX,
    MANIFEST,
    Asked,
    Reply,
    digest,
    partial,
)

pytestmark = [pytest.mark.outer, pytest.mark.needs_userns]

Opened = Callable[..., Any]
Scripted = Callable[..., Any]
Tar = Callable[..., bytes]


def _content(store: Any, image: Any, path: str) -> bytes:
    for layer in image.stack:
        place = store.layers.path(layer) / path
        if place.exists():
            return bytes(place.read_bytes())
    raise AssertionError(f"no {path} in the image")


def test_a_pulled_image_has_its_layers_names_and_manifest(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    layers = [tar({"name": "a", "data": b"lower"}), tar({"name": "b", "data": b"upper"})]
    with scripted() as registry, opened() as (store, images):
        manifest = registry.add_image(*layers)
        manifest["annotations"] = {"kept": "yes"}
        named = registry.add_manifest(manifest, "1")["digest"]
        told: list[dict[str, Any]] = []
        image = images.pull(f"{registry.authority}/team/app:1", progress=told.append)
        assert image.tags == (f"{registry.authority}/team/app:1",)
        assert image.digests == (f"{registry.authority}/team/app@{named}",)
        assert image.id == manifest["config"]["digest"]
        assert (_content(store, image, "a"), _content(store, image, "b")) == (b"lower", b"upper")
        assert images.get(f"{registry.authority}/team/app@{named}") == image
        kept = PulledManifests(store).of(image.id)
        assert kept is not None
        assert (kept.digest, kept.annotations) == (named, {"kept": "yes"})
        (blob,) = CompressedLayers(store).known(digest(layers[0]))
        assert blob.digest == manifest["layers"][0]["digest"]
        assert blob.annotations == {
            f"containerd.io/distribution.source.{registry.authority}": "team/app"
        }
        statuses = [line["status"] for line in told]
        assert statuses[0] == "Pulling from team/app"
        assert statuses.count("Pulling fs layer") == statuses.count("Pull complete") == 2
        assert statuses[-2:] == [
            f"Digest: {named}",
            f"Status: Downloaded newer image for {registry.authority}/team/app:1",
        ]
        short = manifest["layers"][0]["digest"][7:19]
        downloads = [line for line in told if line["status"] == "Downloading"]
        assert any(line["id"] == short for line in downloads)
        assert not os.listdir(store.root / "staging")


def test_what_is_there_is_not_fetched_again(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    base, top = tar({"name": "base"}), tar({"name": "top"})
    with scripted() as registry, opened() as (_, images):
        registry.add_image(base)
        images.pull(f"{registry.authority}/app:1")
        registry.asked.clear()
        told: list[dict[str, Any]] = []
        images.pull(f"{registry.authority}/app:1", progress=told.append)
        assert registry.paths("/blobs/") == []
        assert told[-1]["status"].startswith("Status: Image is up to date for")
        # The same base under another compression is the same layer.
        registry.add_image(base, top, tag="2", compress=lambda data: gzip.compress(data, 9))
        images.pull(f"{registry.authority}/app:2", progress=told.append)
        assert [line["status"] for line in told].count("Already exists") == 2
        assert len(registry.paths("/blobs/")) == 2  # config and top


def test_layers_come_compressed_or_not(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    zstd = pytest.importorskip("backports.zstd")
    big = tar({"name": "big", "data": os.urandom(3 << 20)})
    with scripted() as registry, opened() as (store, images):
        registry.add_image(big, compress=zstd.compress, suffix="+zstd", tag="zstd")
        registry.add_image(tar({"name": "plain"}), compress=lambda data: data, suffix="", tag="tar")
        assert images.pull(f"{registry.authority}/app:zstd").layers == (digest(big),)
        plain = images.pull(f"{registry.authority}/app:tar")
        assert _content(store, plain, "plain") == b""


def test_a_broken_connection_is_gone_on_with_from_the_missing_byte(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    layer = tar({"name": "big", "data": os.urandom(2 << 20)})
    with scripted() as registry, opened() as (_, images):
        blob = registry.blobs[registry.add_image(layer)["layers"][0]["digest"]]
        left = [700_000, 0, 900_000]

        def cut(asked: Asked) -> Reply | None:
            if digest(blob) in asked.path and left:
                reply = partial(asked, blob)
                reply.cut = left.pop(0)
                return reply
            return None

        registry.script(cut)
        assert images.pull(f"{registry.authority}/app:1").layers == (digest(layer),)
        ranges = [
            asked.headers.get("range") for asked in registry.asked if digest(blob) in asked.path
        ]
        assert ranges[0] is None
        assert len(ranges) == 4
        starts = [int(str(each).removeprefix("bytes=").rstrip("-")) for each in ranges[1:]]
        assert starts == sorted(starts)
        assert starts[0] > 0


def test_a_server_without_ranges_is_read_once_more(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    layer = tar({"name": "big", "data": os.urandom(2 << 20)})
    with scripted() as registry, opened() as (_, images):
        blob = registry.blobs[registry.add_image(layer)["layers"][0]["digest"]]
        cuts = [1_000_000]
        registry.script(
            lambda asked: (
                Reply(body=blob, cut=cuts.pop() if cuts else None)
                if digest(blob) in asked.path
                else None
            )
        )
        assert images.pull(f"{registry.authority}/app:1").layers == (digest(layer),)


def test_clients_that_want_one_layer_at_once_fetch_it_once(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    shared = tar({"name": "shared", "data": os.urandom(1 << 20)})
    with scripted() as registry, opened() as (_, images):
        blob = registry.add_image(shared, tar({"name": "one"}), tag="1")["layers"][0]["digest"]
        registry.add_image(shared, tar({"name": "two"}), tag="2")
        everybody = threading.Barrier(4)
        found: list[Any] = []

        def pull(tag: str) -> None:
            everybody.wait()
            found.append(images.pull(f"{registry.authority}/app:{tag}"))

        threads = [threading.Thread(target=pull, args=(tag,)) for tag in "1122"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({image.id for image in found}) == 2
        assert len(found) == 4
        assert len(registry.paths(blob)) == 1


def test_who_waits_for_a_pull_that_fails_fetches_himself(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    layer = tar({"name": "shared", "data": os.urandom(1 << 20)})
    with scripted() as registry, opened() as (_, images):
        blob = registry.add_image(layer)["layers"][0]["digest"]
        begun, go_on = threading.Event(), threading.Event()

        def hold(asked: Asked) -> Reply | None:
            if blob in asked.path and not begun.is_set():
                begun.set()
                go_on.wait(30)
            return None

        registry.script(hold)
        given_up = threading.Event()
        failures: list[Exception] = []

        def first() -> None:
            try:
                images.pull(f"{registry.authority}/app:1", cancelled=given_up)
            except Unavailable as error:
                failures.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        begun.wait(30)
        second: list[Any] = []
        other = threading.Thread(
            target=lambda: second.append(images.pull(f"{registry.authority}/app:1"))
        )
        other.start()
        given_up.set()
        thread.join()
        go_on.set()
        other.join()
        assert len(failures) == 1
        assert second[0].layers == (digest(layer),)


def test_a_pull_that_is_given_up_leaves_nothing(
    scripted: Scripted, opened: Opened, tar: Tar, nothing_left: Callable[..., bool]
) -> None:
    with scripted() as registry, opened() as (store, images):
        layer = registry.add_image(tar({"name": "a"}))["layers"][0]["digest"]
        given_up, go_on = threading.Event(), threading.Event()

        def hold(asked: Asked) -> Reply | None:
            if layer in asked.path:
                given_up.set()
                go_on.wait(30)
            return None

        registry.script(hold)
        with pytest.raises(Unavailable, match="went away"):
            images.pull(f"{registry.authority}/app:1", cancelled=given_up)
        go_on.set()
        assert nothing_left(store, images)


def test_a_registry_that_says_nothing_holds_nobody_up(
    scripted: Scripted, opened: Opened, nothing_left: Callable[..., bool]
) -> None:
    with scripted() as registry, opened() as (store, images):
        given_up, go_on = threading.Event(), threading.Event()

        def hold(asked: Asked) -> Reply | None:
            given_up.set()
            go_on.wait(30)
            return None

        registry.script(hold)
        with pytest.raises(Unavailable, match="went away"):
            images.pull(f"{registry.authority}/app:1", cancelled=given_up)
        assert len(registry.asked) == 1
        go_on.set()
        assert nothing_left(store, images)


def _index(registry: Any, tar: Tar, **platforms: dict[str, str]) -> None:
    entries = []
    for name, platform in platforms.items():
        registry.add_image(tar({"name": name}), tag=name, **platform)
        media_type, raw = registry.manifests[name]
        entry = {"mediaType": media_type, "digest": digest(raw), "size": len(raw)}
        entries.append({**entry, "platform": platform})
    registry.add_manifest({"schemaVersion": 2, "manifests": entries}, "many", INDEX)


def test_an_index_gives_the_image_for_the_platform(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    with scripted() as registry, opened() as (store, images):
        _index(
            registry,
            tar,
            arm={"os": "linux", "architecture": "arm", "variant": "v7"},
            own={"os": "linux", "architecture": images.get("host").config["architecture"]},
            windows={"os": "windows", "architecture": "amd64"},
        )
        name = f"{registry.authority}/app:many"
        assert _content(store, images.pull(name), "own") == b""
        arm = images.pull(name, platform="linux/arm/v7")
        assert _content(store, arm, "arm") == b""
        assert arm.digests == (f"{registry.authority}/app@{digest(registry.manifests['many'][1])}",)
        with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
            images.pull(name, platform="linux/s390x")
        with pytest.raises(NotFound, match="no matching manifest for linux/arm/v6"):
            images.pull(name, platform="linux/arm/v6")


def test_a_single_image_of_another_platform_is_refused_only_when_asked_for(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    with scripted() as registry, opened() as (_, images):
        registry.add_image(tar({"name": "a"}), architecture="s390x")
        with pytest.raises(NotFound, match=r"linux/s390x\) does not match .*linux/amd64"):
            images.pull(f"{registry.authority}/app:1", platform="linux/amd64")
        assert images.pull(f"{registry.authority}/app:1").config["architecture"] == "s390x"


def test_a_pull_by_digest_gives_no_tag(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    with scripted() as registry, opened() as (_, images):
        registry.add_image(tar({"name": "a"}))
        which = digest(registry.manifests["1"][1])
        name = f"{registry.authority}/app:ignored@{which}"
        image = images.pull(name)
        assert image.tags == ()
        assert images.get(f"{registry.authority}/app@{which}").id == image.id


def test_docker_manifests_are_taken_too(scripted: Scripted, opened: Opened, tar: Tar) -> None:
    docker = "application/vnd.docker"
    with scripted() as registry, opened() as (_, images):
        manifest = registry.add_image(tar({"name": "a"}))
        manifest["mediaType"] = f"{docker}.distribution.manifest.v2+json"
        manifest["config"]["mediaType"] = f"{docker}.container.image.v1+json"
        manifest["layers"][0]["mediaType"] = f"{docker}.image.rootfs.diff.tar.gzip"
        entry = registry.add_manifest(manifest, "", manifest["mediaType"])
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        kind = f"{docker}.distribution.manifest.list.v2+json"
        registry.add_manifest(
            {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}, "list", kind
        )
        assert images.pull(f"{registry.authority}/app:list", platform="linux/amd64").layers


def test_a_mirror_is_asked_first_and_passed_over_when_it_fails_or_lies(
    scripted: Scripted, opened: Opened, tar: Tar, quick_settings: Path
) -> None:
    layer = tar({"name": "a", "data": os.urandom(1 << 16)})
    with scripted() as registry, scripted() as mirror, opened() as (_, images):
        quick_settings.write_text(
            f'[network]\nbackoff = 0.001\n[registry."{registry.authority}"]\n'
            f'mirrors = ["{mirror.url}"]\n'
        )
        for each in (registry, mirror):
            manifest = each.add_image(layer)
        blob = manifest["layers"][0]["digest"]
        mirror.blobs[blob] = b"\0" * len(registry.blobs[blob])
        registry.asked.clear()
        image = images.pull(f"{registry.authority}/app:1", credentials=None)
        assert image.layers == (digest(layer),)
        assert mirror.paths(blob)
        assert registry.paths(blob)
        assert registry.paths("/manifests/") == []
        images.remove(image.id, True)
        mirror.script(lambda asked: Reply(500))
        assert images.pull(f"{registry.authority}/app:1").layers == (digest(layer),)


def test_host_is_refused(opened: Opened) -> None:
    with opened() as (_, images):
        for name in ("host", "host:latest", "docker.io/library/host"):
            with pytest.raises(Forbidden, match="machine's own root"):
                images.pull(name)


def test_workers_are_kept_for_the_next_pull_and_end_with_the_service(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    with scripted() as registry:
        with opened() as (_, images):
            registry.add_image(tar({"name": "a"}), tag="1")
            registry.add_image(tar({"name": "b"}), tag="2")
            images.pull(f"{registry.authority}/app:1")
            first = _children()
            assert first
            images.pull(f"{registry.authority}/app:2")
            assert _children() == first
        assert _children() == set()


def _children() -> set[str]:
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for each in lists for pid in each.read_text().split()}


def test_memory_stays_small_whatever_a_layer_holds(
    scripted: Scripted, opened: Opened, tar: Tar
) -> None:
    """150 MB of zeros in one file, a few hundred kB compressed."""
    layer = tar({"name": "zeros", "data": bytes(150 << 20)})
    with scripted() as registry, opened() as (_, images):
        registry.add_image(layer)
        peaks = [0]

        def look(_: dict[str, Any]) -> None:
            for pid in _children():
                status = Path(f"/proc/{pid}/status").read_text()
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]))

        images.pull(f"{registry.authority}/app:1", progress=look)
        assert 0 < max(peaks) < 100 << 10  # kB


def test_schema_1_says_what_it_is(scripted: Scripted, opened: Opened) -> None:
    with scripted() as registry, opened() as (_, images):
        old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        registry.add_manifest({"schemaVersion": 1, "fsLayers": []}, "old", old)
        with pytest.raises(Exception, match="schema 1, which was retired") as caught:
            images.pull(f"{registry.authority}/app:old")
        assert "push the image again" in caught.value.mend  # type: ignore[attr-defined]
        registry.add_manifest({"schemaVersion": 2, "layers": []}, "no-config", MANIFEST)
        with pytest.raises(Exception, match="config"):
            images.pull(f"{registry.authority}/app:no-config")
