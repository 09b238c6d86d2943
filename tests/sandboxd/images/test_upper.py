"""Upper directories of real overlays become layers; owners that the id map lacks come back."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandboxd.images import Images
from sandboxd.images.compress import compressed_layer
from sandboxd.images.compression import Decompressed
from sandboxd.images.layer_export import archive_size, export_layer
from sandboxd.images.upper import adopt_upper
from sandboxd.images.upper_changes import ADDED, DELETED, MODIFIED, changes
from sandboxd.linux import mount
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of
from sandboxd.volumes.difference import copy_difference

Opened = Callable[..., AbstractContextManager[tuple[Store, Images]]]
MakeTar = Callable[..., bytes]

pytestmark = pytest.mark.needs_userns

BASE: list[dict[str, Any]] = [
    {"name": "d", "type": tarfile.DIRTYPE, "mode": 0o2755, "uid": 33, "gid": 34},
    {"name": "d/owned", "data": b"x", "uid": 33, "gid": 70_000},
    {"name": "d/replaced", "data": b"x", "uid": 33},
    {"name": "d/gone", "data": b"x"},
    {"name": "whole", "type": tarfile.DIRTYPE, "mode": 0o755},
    {"name": "whole/inside", "data": b"x"},
    {"name": "etc", "type": tarfile.DIRTYPE, "mode": 0o755},
]


@contextmanager
def mounted(base: Path, lowers: tuple[Path, ...], upper: Path) -> Iterator[Path]:
    """The layers under an upper directory, as a container has them."""
    point, work = base / "point", base / "work"
    for directory in (point, work, upper):
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)
    fd = mount.overlay(tuple(str(lower) for lower in lowers), str(upper), str(work))
    mount.move_mount(fd, str(point))
    os.close(fd)
    try:
        yield point
    finally:
        mount.umount(str(point))
        shutil.rmtree(work)


def members_of(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        return {member.name: member for member in read}


def archive_of(store: Store, ids: IdMap, diff_id: str) -> bytes:
    out = bytearray()
    export_layer(store, ids, diff_id, out.extend)
    return bytes(out)


def write(root: Path) -> None:
    with (root / "d/owned").open("a") as file:
        file.write("more")
    (root / "d/replaced").unlink()
    (root / "d/replaced").write_bytes(b"new")
    (root / "d/gone").unlink()
    shutil.rmtree(root / "whole")
    (root / "whole").mkdir(mode=0o755)
    (root / "new/deep").mkdir(parents=True, mode=0o755)
    (root / "proc").mkdir()
    (root / "etc/hosts").touch()


@pytest.mark.outer
def test_what_a_container_wrote_and_nothing_else(
    opened: Opened, tar: MakeTar, tmp_path: Path, ids: IdMap
) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        lowers = images.lowers(image)
        with mounted(tmp_path, lowers, tmp_path / "upper") as root:
            write(root)
        layer = adopt_upper(store, ids, tmp_path / "upper", lowers)
        assert layer is not None
        assert layer.size == len(b"xmore") + len(b"new")
        assert not (tmp_path / "upper").exists()
        archive = archive_of(store, ids, layer.diff_id)
        assert len(archive) == archive_size(store, ids, layer.diff_id)
        members = members_of(archive)
        assert set(members) == {
            "d",
            "d/owned",
            "d/replaced",
            "d/.wh.gone",
            "whole",
            "whole/.wh..wh..opq",
            "new",
            "new/deep",
        }
        # Copied up: the owner that the id map could not give. Made anew: its own.
        assert (members["d/owned"].uid, members["d/owned"].gid) == (33, 70_000)
        assert (members["d"].uid, members["d"].gid, members["d"].mode) == (33, 34, 0o2755)
        assert members["d/replaced"].uid == 0
        assert all(not member.pax_headers for member in members.values())
        store.release_pin(layer.diff_id)


@pytest.mark.outer
def test_a_comparison_finds_what_the_upper_directory_has(
    opened: Opened, tar: MakeTar, tmp_path: Path, ids: IdMap
) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        lowers = images.lowers(image)
        target = tmp_path / "target"
        target.mkdir(mode=0o755)
        target.chmod(0o755)
        with mounted(tmp_path, lowers, tmp_path / "upper") as root, ExitStack() as held:
            write(root)
            os.link(root / "d/replaced", root / "new/linked")
            (root / "whole").rmdir()
            (root / "whole").symlink_to("d")
            (root / "new/left-out").mkdir()
            (root / "new/left-out/file").touch()
            fds = [os.open(path, os.O_RDONLY) for path in (root, target, *lowers)]
            for fd in fds:
                held.callback(os.close, fd)
            copy_difference(fds[0], tuple(fds[2:]), fds[1], {"new/left-out", "proc", "etc/hosts"})
        assert (target / "d/replaced").stat().st_ino == (target / "new/linked").stat().st_ino
        layer = adopt_upper(store, ids, target, lowers)
        assert layer is not None
        members = members_of(archive_of(store, ids, layer.diff_id))
        assert set(members) == {
            "d",
            "d/owned",
            "d/replaced",
            "d/.wh.gone",
            "whole",
            "new",
            "new/deep",
            "new/linked",
        }
        assert (members["d/owned"].uid, members["d/owned"].gid) == (33, 70_000)
        assert members["whole"].linkname == "d"


@pytest.mark.outer
def test_an_owner_that_was_changed_stays_changed(
    opened: Opened, tar: MakeTar, tmp_path: Path, ids: IdMap
) -> None:
    if ids.kind == "single":
        pytest.skip("there is one owner only")
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        lowers = images.lowers(image)
        with mounted(tmp_path, lowers, tmp_path / "upper") as root:
            os.chown(root / "d/owned", 5, 6)
        layer = adopt_upper(store, ids, tmp_path / "upper", lowers)
        assert layer is not None
        owned = members_of(archive_of(store, ids, layer.diff_id))["d/owned"]
        assert (owned.uid, owned.gid) == (5, 6)


@pytest.mark.outer
def test_nothing_written_is_no_layer(
    opened: Opened, tar: MakeTar, tmp_path: Path, ids: IdMap
) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        with mounted(tmp_path, images.lowers(image), tmp_path / "upper") as root:
            (root / "dev").mkdir()
            (root / "etc/resolv.conf").touch()
        assert adopt_upper(store, ids, tmp_path / "upper", images.lowers(image)) is None
        assert (tmp_path / "upper").is_dir()


@pytest.mark.outer
def test_two_commits_with_a_clamp_are_one(
    opened: Opened, tar: MakeTar, tmp_path: Path, ids: IdMap
) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        lowers = images.lowers(image)
        found = []
        for number, moment in enumerate((10**9, 2 * 10**9)):
            upper = tmp_path / f"upper{number}"
            with mounted(tmp_path, lowers, upper) as root:
                write(root)
                os.utime(root / "d/owned", (moment, moment))
            layer = adopt_upper(store, ids, upper, lowers, clamp=5 * 10**8)
            assert layer is not None
            found.append(layer.diff_id)
        assert found[0] == found[1]
        members = members_of(archive_of(store, ids, found[0]))
        assert max(member.mtime for member in members.values()) == 5 * 10**8


@pytest.mark.outer
def test_changes_are_what_docker_diff_lists(opened: Opened, tar: MakeTar, tmp_path: Path) -> None:
    with opened() as (_, images):
        image = images.import_rootfs(io.BytesIO(tar(*BASE)), "a:1")
        lowers = images.lowers(image)
        assert changes(tmp_path / "upper", lowers) == []
        with mounted(tmp_path, lowers, tmp_path / "upper") as root:
            write(root)
        assert changes(tmp_path / "upper", lowers) == [
            ("/d", MODIFIED),
            ("/d/gone", DELETED),
            ("/d/owned", MODIFIED),
            ("/d/replaced", MODIFIED),
            ("/new", ADDED),
            ("/new/deep", ADDED),
            ("/whole", MODIFIED),
            ("/whole/inside", DELETED),
        ]


@pytest.mark.outer
@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_layer_compressed_is_the_same_blob_each_time(
    opened: Opened, tar: MakeTar, ids: IdMap, kind: str
) -> None:
    with opened() as (store, images):
        data = tar(*BASE, {"name": "big", "data": os.urandom(3 << 20)})
        image = images.import_rootfs(io.BytesIO(data), "a:1")
        blob = compressed_layer(store, ids, image.layers[0], kind)
        with store.blobs.open(blob.digest) as file:
            content = file.read()
        assert (digest_of(content), len(content)) == (blob.digest, blob.size)
        stream = Decompressed(io.BytesIO(content))
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == data
        assert compressed_layer(store, ids, image.layers[0], kind) == blob
        store.collect()
        assert os.listdir(store.root / "blobs/sha256") == [image.id.removeprefix("sha256:")]
        assert compressed_layer(store, ids, image.layers[0], kind) == blob
        assert not os.listdir(store.root / "staging")
