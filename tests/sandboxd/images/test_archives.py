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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest, Forbidden, NoSpace, NoSuchImage
from sandboxd.images import Image, Images
from sandboxd.images.platform import architecture
from sandboxd.images.tar import Limits
from sandboxd.linux import idmap, mount
from sandboxd.store import Store

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]
Parts = dict[str, bytes]
MakeParts = Callable[..., Parts]
MakeArchive = Callable[[Parts], io.BytesIO]


@contextmanager
def _images(tmp_path: Path, **options: Any) -> Iterator[tuple[Store, Images]]:
    ids = idmap.choose()
    store = Store(tmp_path / "root", ids)
    images = Images(store, ids, **options)
    yield store, images
    images.close()
    store.close()


def _nothing_left(store: Store, images: Images) -> bool:
    only_host = [image.is_host for image in images.list()] == [True]
    places = ("layers/sha256", "blobs/sha256", "staging")
    return only_host and not any(os.listdir(store.root / place) for place in places)


def _file(image: Image, images: Images, name: str) -> bytes:
    for lower in images.lowers(image):
        if (lower / name).exists():
            return (lower / name).read_bytes()
    raise FileNotFoundError(name)


def test_a_root_file_system_becomes_an_image(tmp_path: Path, tar: MakeTar) -> None:
    data = tar({"name": "bin/sh", "data": b"#!", "mode": 0o755})
    seen: list[dict[str, Any]] = []
    with _images(tmp_path) as (store, images):
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
    with _images(tmp_path) as (_, images):
        assert images.get("tiny:1") == image


def test_an_import_without_a_name_is_found_by_its_id(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as (_, images):
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
    tmp_path: Path, tar: MakeTar, data: bytes | None, reference: str, error: type[Exception]
) -> None:
    data = tar({"name": "f"}) if data is None else data
    with _images(tmp_path) as (store, images):
        with pytest.raises(error):
            images.import_rootfs(io.BytesIO(data), reference)
        assert _nothing_left(store, images)


def test_a_bad_change_leaves_nothing(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as (store, images):
        with pytest.raises(BadRequest, match="not a valid change command"):
            images.import_rootfs(io.BytesIO(tar({"name": "f"})), "tiny", changes=["RUN true"])
        assert _nothing_left(store, images)


def test_a_client_that_goes_away_in_mid_import_leaves_nothing(tmp_path: Path, tar: MakeTar) -> None:
    data = io.BytesIO(tar({"name": "f", "data": b"x" * 5_000_000}))

    class Cut:
        def read(self, size: int, /) -> bytes:
            if data.tell() > 2_000_000:
                raise ConnectionResetError("the client went away")
            return data.read(size)

    with _images(tmp_path) as (store, images):
        with pytest.raises(Exception, match="went away"):
            images.import_rootfs(Cut(), "tiny")
        assert _nothing_left(store, images)


def test_a_saved_archive_is_loaded(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
) -> None:
    layers = (tar({"name": "a", "data": b"1"}), tar({"name": "a", "data": b"2"}))
    with _images(tmp_path) as (_, images):
        assert images.load(archive(saved(*layers, tags=("app:1", "app:2")))) == ["app:1", "app:2"]
        image = images.get("app:2")
        assert image.tags == ("app:1", "app:2")
        assert image.created == "2024-01-02T03:04:05Z"
        assert image.config["config"]["Cmd"] == ["/bin/sh"]
        assert len(image.layers) == 2
        assert _file(image, images, "a") == b"2"


def test_layers_that_are_there_are_shared(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
) -> None:
    base = tar({"name": "base", "data": b"b" * 100})
    with _images(tmp_path) as (store, images):
        images.load(archive(saved(base, tags=("one:1",))))
        inode = os.stat(images.lowers(images.get("one:1"))[0]).st_ino
        images.load(archive(saved(base, tar({"name": "top"}), tags=("two:1",))))
        assert os.stat(images.lowers(images.get("two:1"))[1]).st_ino == inode
        images.remove("one:1")
        assert _file(images.get("two:1"), images, "base") == b"b" * 100
        images.remove("two:1")
        assert _nothing_left(store, images)


@pytest.mark.parametrize("compress", [False, True])
def test_an_oci_layout_is_loaded(
    tmp_path: Path, tar: MakeTar, layout: MakeParts, archive: MakeArchive, compress: bool
) -> None:
    parts = layout(tar({"name": "a", "data": b"1"}))
    data = archive(parts).getvalue()
    with _images(tmp_path) as (_, images):
        names = images.load(io.BytesIO(gzip.compress(data) if compress else data))
        assert names == ["example.test/app:2"]
        image = images.get("example.test/app:2")
        digest = json.loads(parts["index.json"])["manifests"][0]["digest"]
        assert image.digests == (f"example.test/app@{digest}",)
        assert images.get(f"example.test/app@{digest}") == image


def test_a_layout_without_a_name_is_answered_with_the_id(
    tmp_path: Path, tar: MakeTar, layout: MakeParts, archive: MakeArchive
) -> None:
    with _images(tmp_path) as (_, images):
        (name,) = images.load(archive(layout(tar({"name": "a"}), name="")))
        assert images.get(name).id == name


def test_of_several_platforms_the_machines_own_is_taken(
    tmp_path: Path, tar: MakeTar, layout: MakeParts, archive: MakeArchive
) -> None:
    own = {"os": "linux", "architecture": architecture()}
    parts: Parts = {}
    manifests = []
    for platform, content in ((own, b"own"), ({"os": "linux", "architecture": "vax"}, b"vax")):
        one = layout(tar({"name": "a", "data": content}), platform=platform)
        manifests += json.loads(one.pop("index.json"))["manifests"]
        parts |= one
    parts["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    with _images(tmp_path) as (_, images):
        assert images.load(archive(parts)) == ["example.test/app:2"]
        assert _file(images.get("example.test/app:2"), images, "a") == b"own"
        parts["index.json"] = json.dumps({"manifests": manifests[1:]}).encode()
        with pytest.raises(BadRequest, match=f"no image for linux/{architecture()}"):
            images.load(archive(parts))


def _tampered(parts: Parts, case: str, tar: MakeTar) -> Parts:
    manifest = json.loads(parts.get("manifest.json", b"[{}]"))
    index = json.loads(parts.get("index.json", b'{"manifests":[{}]}'))
    entry = index["manifests"][0]
    layer = next((name for name in parts if name.endswith("layer.tar")), "")
    blob = f"blobs/sha256/{entry.get('digest', '')[7:]}"
    match case:
        case "another layer":
            parts[layer] = tar({"name": "evil"})
        case "cut layer":
            parts[layer] = parts[layer][:700]
        case "trailing bytes":
            parts[layer] += b"more"
        case "missing layer":
            del parts[layer]
        case "one layer too many":
            manifest[0]["Layers"].append(layer)
        case "another config":
            parts[manifest[0]["Config"]] = b'{"rootfs":{"type":"layers","diff_ids":[]}}'
        case "config as a path":
            manifest[0]["Config"] = "../../../../etc/passwd"
        case "layer as a path":
            manifest[0]["Layers"] = ["/etc/passwd"]
        case "manifest is no list":
            manifest = {"Config": "x"}
        case "manifest of numbers":
            manifest = [1, 2]
        case "layers of numbers":
            manifest[0]["Layers"] = [1]
        case "bad tag":
            manifest[0]["RepoTags"] = ["BAD TAG"]
        case "the name host":
            manifest[0]["RepoTags"] = ["fine:1", "host:latest"]
        case "no manifest":
            del parts["manifest.json"]
        case "too deep":
            return {**parts, "manifest.json": b"[" * 200_000}
        case "too big":
            return {**parts, "manifest.json": b'["' + b"x" * (5 << 20) + b'"]'}
        case "no json":
            return {**parts, "manifest.json": b"\xff\xfe"}
        case "another manifest":
            parts[blob] = parts[blob].replace(b"{", b" {", 1)
        case "another size":
            entry["size"] += 1
        case "digest as a path":
            entry["digest"] = "sha256:../../../etc/passwd"
        case "index and manifest at once":
            index["layers"] = []
        case "an index that names itself":
            entry |= {"mediaType": "application/vnd.oci.image.index.v1+json"}
            index["manifests"] = [entry, entry]
        case "a manifest with manifests":
            document = {**json.loads(parts[blob]), "manifests": []}
            from hashlib import sha256

            text = json.dumps(document).encode()
            entry |= {"digest": f"sha256:{sha256(text).hexdigest()}", "size": len(text)}
            parts[f"blobs/sha256/{entry['digest'][7:]}"] = text
        case _:
            raise AssertionError(case)
    if "manifest.json" in parts:
        parts["manifest.json"] = json.dumps(manifest).encode()
    if "index.json" in parts:
        parts["index.json"] = json.dumps(index).encode()
    return parts


_SAVED = [
    "another layer", "cut layer", "trailing bytes", "missing layer", "one layer too many",
    "another config", "config as a path", "layer as a path", "manifest is no list",
    "manifest of numbers", "layers of numbers", "bad tag", "the name host", "no manifest",
    "too deep", "too big", "no json",
]  # fmt: skip
_LAYOUT = [
    "another manifest", "another size", "digest as a path", "index and manifest at once",
    "an index that names itself", "a manifest with manifests",
]  # fmt: skip


@pytest.mark.parametrize("case", [*_SAVED, *_LAYOUT])
def test_a_corrupt_archive_leaves_nothing(
    tmp_path: Path,
    tar: MakeTar,
    saved: MakeParts,
    layout: MakeParts,
    archive: MakeArchive,
    case: str,
) -> None:
    good = tar({"name": "first"})
    make = layout if case in _LAYOUT else saved
    parts = _tampered(make(tar({"name": "a", "data": b"1"}), good), case, tar)
    with _images(tmp_path) as (store, images):
        with pytest.raises((BadRequest, Forbidden)):
            images.load(archive(parts))
        assert _nothing_left(store, images)


def test_links_of_old_archives_are_followed_by_name_only(
    tmp_path: Path, tar: MakeTar, saved: MakeParts
) -> None:
    layer = tar({"name": "a", "data": b"1"})
    parts = saved(layer, layer)
    members: list[dict[str, Any]] = [{"name": name, "data": data} for name, data in parts.items()]
    link = {"type": tarfile.SYMTYPE, "linkname": "../layer0/layer.tar"}
    members = [member for member in members if member["name"] != "layer1/layer.tar"]
    with _images(tmp_path) as (store, images):
        images.load(io.BytesIO(tar(*members, {"name": "layer1/layer.tar", **link})))
        assert len(images.get("app:1").layers) == 2
        images.remove("app:1")
        for target in ("/etc/passwd", "../../../etc/passwd", "../layer1/layer.tar"):
            odd = {"name": "layer1/layer.tar", **link, "linkname": target}
            with pytest.raises(BadRequest, match="holds no"):
                images.load(io.BytesIO(tar(*members, odd)))
        assert _nothing_left(store, images)


def test_limits_bound_what_an_archive_may_hold(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
) -> None:
    parts = saved(tar({"name": "a", "data": b"x" * 200_000}))
    with _images(tmp_path, limits=Limits(size=100_000)) as (store, images):
        with pytest.raises(BadRequest, match="more than 100000 bytes"):
            images.load(archive(parts))
        with pytest.raises(BadRequest, match="more than 100000 bytes"):
            images.import_rootfs(io.BytesIO(parts["layer0/layer.tar"]), "big")
        assert _nothing_left(store, images)


def test_directories_that_a_layer_only_implies_stay_what_they_are_below(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
) -> None:
    def directory(name: str, mode: int) -> dict[str, Any]:
        return {"name": name, "type": tarfile.DIRTYPE, "mode": mode}

    base = tar(directory("tmp", 0o1777), directory("srv", 0o700), directory("srv/deep", 0o711))
    top = tar(
        {"name": "tmp/f"}, {"name": "srv/deep/f"}, {"name": "new/f"}, directory("srv/x", 0o750)
    )
    with _images(tmp_path) as (store, images):
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
        assert _nothing_left(store, images)


def test_an_opaque_root_ends_the_stack(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
) -> None:
    layers = (tar({"name": "old"}), tar({"name": ".wh..wh..opq"}, {"name": "new"}))
    with _images(tmp_path) as (_, images):
        images.load(archive(saved(*layers)))
        (only,) = images.lowers(images.get("app:1"))
        assert os.listdir(only) == ["new"]


def test_imports_at_once_of_the_same_and_other_images(
    tmp_path: Path, tar: MakeTar, saved: MakeParts, archive: MakeArchive
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

    with _images(tmp_path) as (store, images):
        threads = [threading.Thread(target=take_in, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert _nothing_left(store, images)


def test_a_full_disk_leaves_nothing_and_a_later_import_works(tmp_path: Path, tar: MakeTar) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fd = mount.new_filesystem("tmpfs", (("size", "8m"), ("mode", "0700")))
    mount.move_mount(fd, str(root))
    small = tar({"name": "f", "data": os.urandom(1 << 20)})
    many = tar(*({"name": f"d{number}/f", "data": os.urandom(4096)} for number in range(4000)))
    with _images(tmp_path) as (store, images):
        kept = images.import_rootfs(io.BytesIO(small), "kept")
        for data in (tar({"name": "big", "data": os.urandom(16 << 20)}), many):
            with pytest.raises(NoSpace):
                images.import_rootfs(io.BytesIO(data), "big")
        assert [image.tags for image in images.list()] == [("host:latest",), ("kept:latest",)]
        assert os.listdir(store.root / "layers/sha256") == [kept.layers[0][7:]]
    with _images(tmp_path) as (store, images):
        again = tar({"name": "g", "data": os.urandom(2 << 20)})
        images.import_rootfs(io.BytesIO(again), "again")
        images.remove("kept")
        assert os.listdir(store.root / "staging") == []
    mount.umount(str(root))


def test_an_image_that_lost_a_layer_is_forgotten_and_can_come_again(
    tmp_path: Path, tar: MakeTar
) -> None:
    data = tar({"name": "f", "data": b"x"})
    with _images(tmp_path) as (_, images):
        lost = images.import_rootfs(io.BytesIO(data), "app")
        shutil.rmtree(images.lowers(lost)[0])
    with _images(tmp_path) as (_, images):
        with pytest.raises(NoSuchImage):
            images.get("app")
        again = images.import_rootfs(io.BytesIO(data), "app")
        assert again.layers == lost.layers
        assert _file(again, images, "f") == b"x"
