"""Import and load through `Images`: what arrives whole is an image, all else leaves nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest, Forbidden, NoSpace, NoSuchImage
from sandboxd.images import Image, Images
from sandboxd.images.platform import architecture
from sandboxd.images.tar import Limits
from sandboxd.linux import mount
from sandboxd.store import Store

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]
Parts = dict[str, bytes]
MakeParts = Callable[..., Parts]
MakeArchive = Callable[[Parts], io.BytesIO]
OpenImages = Callable[..., AbstractContextManager[tuple[Store, Images]]]
NothingLeft = Callable[[Store, Images], bool]


def _file(image: Image, images: Images, name: str) -> bytes:
    for lower in images.lowers(image):
        if (lower / name).exists():
            return (lower / name).read_bytes()
    raise FileNotFoundError(name)


def test_a_root_file_system_becomes_an_image(tar: MakeTar, opened: OpenImages) -> None:
    data = tar({"name": "bin/sh", "data": b"#!", "mode": 0o755})
    seen: list[dict[str, Any]] = []
    with opened() as (store, images):
        image = images.import_rootfs(
            io.BytesIO(gzip.compress(data)),
            "docker.io/library/tiny:1",
            message="by hand",
            changes=["CMD sleep 1", "ENV A=1 B='2 3'", "LABEL x=y", "WORKDIR /w", "EXPOSE 80"],
            progress=seen.append,
        )
        assert image.tags == ("tiny:1",)
        assert image.config["architecture"] == architecture()
        assert image.config["history"][0]["comment"] == "by hand"
        assert image.config["config"] == {
            "Cmd": ["/bin/sh", "-c", "sleep 1"],
            "Env": ["A=1", "B=2 3"],
            "Labels": {"x": "y"},
            "WorkingDir": "/w",
            "ExposedPorts": {"80/tcp": {}},
        }
        with store.blobs.open(image.id) as blob:
            assert json.load(blob) == image.config
        assert (image.size, len(image.layers), image.is_host) == (2, 1, False)
        assert seen
        rootfs = images.rootfs(image, upper="/some/where", readonly=True)
        assert rootfs.lowers == (str(store.layers.path(image.layers[0])),)
        assert (rootfs.upper, rootfs.readonly, rootfs.host) == ("/some/where", True, None)
        for name in ("tiny:1", "docker.io/library/tiny:1", image.id, image.id[7:], image.id[7:19]):
            assert images.get(name) == image
        for name in ("tiny", "tiny:2", "other/tiny:1", "f" * 64, "sha256:" + "f" * 64):
            with pytest.raises(NoSuchImage, match="No such image: "):
                images.get(name)
    with opened() as (_, images):
        assert images.get("tiny:1") == image


def test_an_import_without_a_name_is_found_by_its_id(tar: MakeTar, opened: OpenImages) -> None:
    with opened() as (_, images):
        image = images.import_rootfs(io.BytesIO(tar({"name": "f"})), None)
        assert image.tags == ()
        assert images.get(image.id) == image
        assert [each.id for each in images.list({"dangling": ["true"]})] == [image.id]


@pytest.mark.parametrize(
    ("data", "reference", "error"),
    [
        (b"", "tiny", BadRequest),
        (b"\0" * 10240, "tiny", BadRequest),
        (b"garbage" * 1000, "tiny", BadRequest),
        (b"\x1f\x8b\x08garbage", "tiny", BadRequest),
        (None, "UPPER", BadRequest),
        (None, "a@sha256:" + "a" * 64, BadRequest),
        (None, "host", Forbidden),
        (None, "docker.io/library/host:x", Forbidden),
    ],
)
def test_a_bad_import_leaves_nothing(
    tar: MakeTar,
    data: bytes | None,
    reference: str,
    error: type[Exception],
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    data = tar({"name": "f"}) if data is None else data
    with opened() as (store, images):
        with pytest.raises(error):
            images.import_rootfs(io.BytesIO(data), reference)
        assert nothing_left(store, images)


def test_a_bad_change_leaves_nothing(
    tar: MakeTar, opened: OpenImages, nothing_left: NothingLeft
) -> None:
    with opened() as (store, images):
        with pytest.raises(BadRequest, match="not a valid change command"):
            images.import_rootfs(io.BytesIO(tar({"name": "f"})), "tiny", changes=["RUN true"])
        assert nothing_left(store, images)


def test_a_client_that_goes_away_in_mid_import_leaves_nothing(
    tar: MakeTar, opened: OpenImages, nothing_left: NothingLeft
) -> None:
    data = io.BytesIO(tar({"name": "f", "data": b"x" * 5_000_000}))

    class Cut:
        def read(self, size: int, /) -> bytes:
            if data.tell() > 2_000_000:
                raise ConnectionResetError("the client went away")
            return data.read(size)

    with opened() as (store, images):
        with pytest.raises(Exception, match="went away"):
            images.import_rootfs(Cut(), "tiny")
        assert nothing_left(store, images)


def test_a_saved_archive_is_loaded(
    tar: MakeTar, saved: MakeParts, archive: MakeArchive, opened: OpenImages
) -> None:
    layers = (tar({"name": "a", "data": b"1"}), tar({"name": "a", "data": b"2"}))
    with opened() as (_, images):
        assert images.load(archive(saved(*layers, tags=("app:1", "app:2")))) == ["app:1", "app:2"]
        image = images.get("app:2")
        assert image.tags == ("app:1", "app:2")
        assert image.created == "2024-01-02T03:04:05Z"
        assert image.config["config"]["Cmd"] == ["/bin/sh"]
        assert len(image.layers) == 2
        assert _file(image, images, "a") == b"2"


def test_layers_that_are_there_are_shared(
    tar: MakeTar,
    saved: MakeParts,
    archive: MakeArchive,
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    base = tar({"name": "base", "data": b"b" * 100})
    with opened() as (store, images):
        images.load(archive(saved(base, tags=("one:1",))))
        inode = os.stat(images.lowers(images.get("one:1"))[0]).st_ino
        images.load(archive(saved(base, tar({"name": "top"}), tags=("two:1",))))
        assert os.stat(images.lowers(images.get("two:1"))[1]).st_ino == inode
        images.remove("one:1")
        assert _file(images.get("two:1"), images, "base") == b"b" * 100
        images.remove("two:1")
        assert nothing_left(store, images)


@pytest.mark.parametrize("compress", [False, True])
def test_an_oci_layout_is_loaded(
    tar: MakeTar, layout: MakeParts, archive: MakeArchive, compress: bool, opened: OpenImages
) -> None:
    parts = layout(tar({"name": "a", "data": b"1"}))
    data = archive(parts).getvalue()
    with opened() as (_, images):
        names = images.load(io.BytesIO(gzip.compress(data) if compress else data))
        assert names == ["example.test/app:2"]
        image = images.get("example.test/app:2")
        digest = json.loads(parts["index.json"])["manifests"][0]["digest"]
        assert image.digests == (f"example.test/app@{digest}",)
        assert images.get(f"example.test/app@{digest}") == image


def test_a_layout_without_a_name_is_answered_with_the_id(
    tar: MakeTar, layout: MakeParts, archive: MakeArchive, opened: OpenImages
) -> None:
    with opened() as (_, images):
        (name,) = images.load(archive(layout(tar({"name": "a"}), name="")))
        assert images.get(name).id == name


def test_of_several_platforms_the_machines_own_is_taken(
    tar: MakeTar, layout: MakeParts, archive: MakeArchive, opened: OpenImages
) -> None:
    own = {"os": "linux", "architecture": architecture()}
    parts: Parts = {}
    manifests = []
    for platform, content in ((own, b"own"), ({"os": "linux", "architecture": "vax"}, b"vax")):
        one = layout(tar({"name": "a", "data": content}), platform=platform)
        manifests += json.loads(one.pop("index.json"))["manifests"]
        parts |= one
    parts["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    with opened() as (_, images):
        assert images.load(archive(parts)) == ["example.test/app:2"]
        assert _file(images.get("example.test/app:2"), images, "a") == b"own"
        parts["index.json"] = json.dumps({"manifests": manifests[1:]}).encode()
        with pytest.raises(BadRequest, match=f"no image for linux/{architecture()}"):
            images.load(archive(parts))


def test_links_of_old_archives_are_followed_by_name_only(
    tar: MakeTar, saved: MakeParts, opened: OpenImages, nothing_left: NothingLeft
) -> None:
    layer = tar({"name": "a", "data": b"1"})
    parts = saved(layer, layer)
    members: list[dict[str, Any]] = [{"name": name, "data": data} for name, data in parts.items()]
    link = {"type": tarfile.SYMTYPE, "linkname": "../layer0/layer.tar"}
    members = [member for member in members if member["name"] != "layer1/layer.tar"]
    with opened() as (store, images):
        images.load(io.BytesIO(tar(*members, {"name": "layer1/layer.tar", **link})))
        assert len(images.get("app:1").layers) == 2
        images.remove("app:1")
        for target in ("/etc/passwd", "../../../etc/passwd", "../layer1/layer.tar"):
            odd = {"name": "layer1/layer.tar", **link, "linkname": target}
            with pytest.raises(BadRequest, match="holds no"):
                images.load(io.BytesIO(tar(*members, odd)))
        assert nothing_left(store, images)


def test_limits_bound_what_an_archive_may_hold(
    tar: MakeTar,
    saved: MakeParts,
    archive: MakeArchive,
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    parts = saved(tar({"name": "a", "data": b"x" * 200_000}))
    with opened(limits=Limits(size=100_000)) as (store, images):
        with pytest.raises(BadRequest, match="more than 100000 bytes"):
            images.load(archive(parts))
        with pytest.raises(BadRequest, match="more than 100000 bytes"):
            images.import_rootfs(io.BytesIO(parts["layer0/layer.tar"]), "big")
        assert nothing_left(store, images)


def test_directories_that_a_layer_only_implies_stay_what_they_are_below(
    tar: MakeTar,
    saved: MakeParts,
    archive: MakeArchive,
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    def directory(name: str, mode: int) -> dict[str, Any]:
        return {"name": name, "type": tarfile.DIRTYPE, "mode": mode}

    base = tar(directory("tmp", 0o1777), directory("srv", 0o700), directory("srv/deep", 0o711))
    top = tar(
        {"name": "tmp/f"}, {"name": "srv/deep/f"}, {"name": "new/f"}, directory("srv/x", 0o750)
    )
    with opened() as (store, images):
        images.load(archive(saved(base, top)))
        image = images.get("app:1")
        assert len(image.layers) == 2
        assert len(images.lowers(image)) == 3
        modes = {}
        for lower in reversed(images.lowers(image)):
            for path in lower.rglob("*"):
                if path.is_dir():
                    mode = stat.S_IMODE(os.stat(path).st_mode)
                    modes[str(path.relative_to(lower))] = mode
        assert modes == {
            "tmp": 0o1777, "srv": 0o700, "srv/deep": 0o711, "srv/x": 0o750, "new": 0o755,
        }  # fmt: skip
        store.collect()
        assert all(lower.is_dir() for lower in images.lowers(image))
        images.remove("app:1")
        assert nothing_left(store, images)


def test_an_opaque_root_ends_the_stack(
    tar: MakeTar, saved: MakeParts, archive: MakeArchive, opened: OpenImages
) -> None:
    layers = (tar({"name": "old"}), tar({"name": ".wh..wh..opq"}, {"name": "new"}))
    with opened() as (_, images):
        images.load(archive(saved(*layers)))
        (only,) = images.lowers(images.get("app:1"))
        assert os.listdir(only) == ["new"]


def test_imports_at_once_of_the_same_and_other_images(
    tar: MakeTar,
    saved: MakeParts,
    archive: MakeArchive,
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    base, others = tar({"name": "base", "data": b"b"}), [tar({"name": f"{n}"}) for n in range(4)]
    failures: list[BaseException] = []

    def take_in(number: int) -> None:
        try:
            for turn in range(6):
                name = f"n{number}:{turn}"
                images.load(archive(saved(base, others[(number + turn) % 4], tags=(name,))))
                assert _file(images.get(name), images, "base") == b"b"
                images.remove(name)
        except BaseException as error:
            failures.append(error)

    with opened() as (store, images):
        threads = [threading.Thread(target=take_in, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert nothing_left(store, images)


def test_a_full_disk_leaves_nothing_and_a_later_import_works(
    tmp_path: Path, tar: MakeTar, opened: OpenImages
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fd = mount.new_filesystem("tmpfs", (("size", "8m"), ("mode", "0700")))
    mount.move_mount(fd, str(root))
    small = tar({"name": "f", "data": os.urandom(1 << 20)})
    many = tar(*({"name": f"d{number}/f", "data": os.urandom(4096)} for number in range(4000)))
    with opened() as (store, images):
        kept = images.import_rootfs(io.BytesIO(small), "kept")
        for data in (tar({"name": "big", "data": os.urandom(16 << 20)}), many):
            with pytest.raises(NoSpace):
                images.import_rootfs(io.BytesIO(data), "big")
        assert [image.tags for image in images.list()] == [("host:latest",), ("kept:latest",)]
        assert os.listdir(store.root / "layers/sha256") == [kept.layers[0][7:]]
    with opened() as (store, images):
        again = tar({"name": "g", "data": os.urandom(2 << 20)})
        images.import_rootfs(io.BytesIO(again), "again")
        images.remove("kept")
        assert os.listdir(store.root / "staging") == []
    mount.umount(str(root))


def test_an_image_that_lost_a_layer_is_forgotten_and_can_come_again(
    tar: MakeTar, opened: OpenImages
) -> None:
    data = tar({"name": "f", "data": b"x"})
    with opened() as (_, images):
        lost = images.import_rootfs(io.BytesIO(data), "app")
        shutil.rmtree(images.lowers(lost)[0])
    with opened() as (_, images):
        with pytest.raises(NoSuchImage):
            images.get("app")
        again = images.import_rootfs(io.BytesIO(data), "app")
        assert again.layers == lost.layers
        assert _file(again, images, "f") == b"x"
