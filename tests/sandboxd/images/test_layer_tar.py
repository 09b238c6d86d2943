"""Layers written back as archives: the very bytes they came in, or our own, always the same."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.errors import SandboxError
from sandboxd.images import Images, tar_header
from sandboxd.images.layer_export import export_layer
from sandboxd.images.layer_tar import write_layer
from sandboxd.linux import idmap
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of

Opened = Callable[..., AbstractContextManager[tuple[Store, Images]]]
MakeTar = Callable[..., bytes]

pytestmark = pytest.mark.needs_userns

EVERYTHING: list[dict[str, Any]] = [
    {"name": "./", "type": tarfile.DIRTYPE, "mode": 0o750},
    {"name": "etc", "type": tarfile.DIRTYPE, "mode": 0o755, "uname": "root", "gname": "wheel"},
    {"name": "etc/shadow", "data": b"secret", "mode": 0o640, "gid": 42, "uname": "root"},
    {"name": "etc/nested/only/implied", "data": b"x" * 1000},
    {"name": "bin/su", "data": b"#!", "mode": 0o4755},
    {"name": "bin/sudo", "type": tarfile.LNKTYPE, "linkname": "bin/su"},
    {"name": "dev/null", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666},
    {"name": "dev/sda", "type": tarfile.BLKTYPE, "devmajor": 8, "mode": 0o660, "gid": 6},
    {"name": "pipe", "type": tarfile.FIFOTYPE, "mode": 0o600},
    {"name": "lib", "type": tarfile.SYMTYPE, "linkname": "usr/lib"},
    {"name": "usr/lib", "type": tarfile.DIRTYPE},
    {"name": "lib/through-a-link", "data": b"inside usr/lib"},
    {"name": "a/" * 60 + "deep", "data": b"long name"},
    {"name": "ümlaut-\udcff", "data": b"not UTF-8"},
    {"name": "tool", "data": b"\x7fELF", "pax": {"SCHILY.xattr.security.capability": "cap"}},
    {"name": "attr", "data": b"1", "pax": {"SCHILY.xattr.user.note": "kept"}},
    {"name": "time", "data": b"1", "mtime": 1700000000.25},
    {"name": "far", "data": b"1", "uid": 5_000_000, "gid": 5_000_001},
    {"name": "gone/.wh.file"},
    {"name": "gone/.wh..wh..opq"},
    {"name": "zeros", "data": bytes(300_000)},
    {"name": "odd", "type": b"V", "data": b"payload of an unknown kind"},
]
DUPLICATES: list[dict[str, Any]] = [
    {"name": "a", "data": b"first"},
    {"name": "a", "data": b"second, longer" * 1000},
    {"name": "b", "type": tarfile.LNKTYPE, "linkname": "a"},
    {"name": "a", "data": b"third"},
    {"name": "d/x/y", "data": b"in a directory that goes"},
    {"name": "d/x/z", "data": b"also"},
    {"name": "d/x", "data": b"the file that replaces it"},
    {"name": "d", "type": tarfile.SYMTYPE, "linkname": "a"},
    {"name": "d", "type": tarfile.DIRTYPE},
    {"name": "d/x/y", "data": b"again"},
]


def written(store: Store, ids: IdMap, diff_id: str) -> bytes:
    out = bytearray()
    assert export_layer(store, ids, diff_id, out.extend) == (diff_id, len(out))
    return bytes(out)


@pytest.mark.outer
@pytest.mark.parametrize("members", [EVERYTHING, DUPLICATES], ids=["everything", "duplicates"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_comes_back_byte_for_byte(
    opened: Opened, tar: MakeTar, ids: IdMap, members: list[dict[str, Any]], format: int
) -> None:
    if format == tarfile.GNU_FORMAT:
        members = [{k: v for k, v in each.items() if k != "pax"} for each in members]
    data = tar(*members, format=format) + bytes(5000)
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(data), "a:1")
        assert written(store, ids, image.layers[0]) == data


@pytest.mark.outer
def test_the_recipe_goes_with_its_layer(opened: Opened, tar: MakeTar) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar({"name": "f", "data": b"x"})), "a:1")
        assert store.layers.recipe(image.layers[0]) is not None
        images.remove("a:1")
        assert os.listdir(store.root / "recipes") == []


@pytest.mark.outer
def test_a_layer_that_was_changed_by_hand_is_not_written(
    opened: Opened, tar: MakeTar, ids: IdMap
) -> None:
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(tar({"name": "f", "data": b"x"})), "a:1")
        (store.layers.path(image.layers[0]) / "f").write_bytes(b"y")
        with pytest.raises(SandboxError, match="is damaged"):
            written(store, ids, image.layers[0])
        (store.layers.path(image.layers[0]) / "f").write_bytes(b"")
        with pytest.raises(SandboxError, match="is damaged"):
            written(store, ids, image.layers[0])


_name = st.lists(st.sampled_from(["a", "b", "c", ".wh.a", "ö"]), min_size=1, max_size=3).map(
    "/".join
)
_member = st.one_of(
    st.builds(lambda name, data: {"name": name, "data": data}, _name, st.binary(max_size=1500)),
    st.builds(lambda name: {"name": name, "type": tarfile.DIRTYPE}, _name),
    st.builds(lambda name: {"name": name, "type": tarfile.FIFOTYPE}, _name),
    st.builds(
        lambda name, to: {"name": name, "type": tarfile.SYMTYPE, "linkname": to}, _name, _name
    ),
    st.builds(
        lambda name, to: {"name": name, "type": tarfile.LNKTYPE, "linkname": to}, _name, _name
    ),
)


@pytest.mark.outer
def test_whatever_can_be_unpacked_comes_back(opened: Opened, tar: MakeTar) -> None:
    with opened() as (store, images):

        @settings(max_examples=60)
        @given(st.lists(_member, max_size=12))
        def check(members: list[dict[str, Any]]) -> None:
            data = tar(*members)
            try:
                image = images.import_rootfs(io.BytesIO(data), None)
            except SandboxError:
                return
            assert written(store, store.idmap, image.layers[0]) == data

        check()


@pytest.mark.outer
def test_our_own_archive_is_deterministic_and_says_everything(tmp_path: Path) -> None:
    archives = []
    for place in ("one", "two"):
        tree = tmp_path / place
        tree.mkdir(mode=0o755)
        os.chmod(tree, 0o755)
        names = ["z", "b", "a"] if place == "two" else ["a", "b", "z"]
        for name in names:
            (tree / name).write_bytes(b"data of " + name.encode())
            os.utime(tree / name, ns=(0, 10**18 + 5))
        os.setxattr(tree / "a", "user.note", b"kept")
        os.setxattr(tree / "a", "user.overlay.origin", b"not kept")
        os.chmod(tree / "b", 0o4755)
        long = "d" * 90 + "/" + "e" * 120
        (tree / long).parent.mkdir(mode=0o755)
        (tree / long).write_bytes(b"")
        os.utime(tree / long, ns=(0, 0))
        os.utime((tree / long).parent, ns=(0, 0))
        os.link(tree / "z", tree / "zz")
        os.symlink("ä" * 70, tree / "link")
        os.utime(tree / "link", ns=(0, 10**18), follow_symlinks=False)
        os.mknod(tree / "gone", stat.S_IFCHR, 0)
        with open(tree / "sparse", "wb") as file:
            file.truncate(1 << 20)
        os.utime(tree / "sparse", ns=(0, 0))
        out = bytearray()
        owners = {"owners": {"b": [70000, 3_000_000]}}
        layer = write_layer(tree, owners, out.extend, idmap.single(), clamp=5 * 10**8)
        assert layer == (digest_of(bytes(out)), len(out))
        archives.append(bytes(out))
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as read:
        members = {member.name: member for member in read}
    assert list(members) == sorted(members, key=lambda name: name.replace(".wh.", ""))
    assert members["a"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert len(members["a"].pax_headers) == 1
    assert (members["b"].uid, members["b"].gid, members["b"].mode) == (70000, 3_000_000, 0o4755)
    assert members["zz"].linkname == "z"
    assert members["link"].linkname == "ä" * 70
    assert members["d" * 90 + "/" + "e" * 120].size == 0
    assert members[".wh.gone"].isfile()
    assert members["sparse"].size == 1 << 20
    assert {member.mtime for member in members.values()} == {0, 5 * 10**8}
    assert {member.uname for member in members.values()} == {""}


@pytest.mark.parametrize(
    "name",
    [
        b"x",
        b"d/" + b"n" * 100,
        b"p" * 155 + b"/" + b"n" * 100,
        b"d" * 101 + b"/",
        b"\xff\xfe",
        b"n" * 200,
    ],
)
def test_any_name_is_read_back_by_the_standard_library(name: bytes) -> None:
    kind = tar_header.DIRECTORY if name.endswith(b"/") else tar_header.FILE
    block = tar_header.header(name, kind, mode=0o4711, size=0, mtime=7) + tar_header.END
    with tarfile.open(fileobj=io.BytesIO(block), errors="surrogateescape") as read:
        (member,) = read
    assert os.fsencode(member.name) == name.rstrip(b"/")
    assert (member.mode, member.mtime) == (0o4711, 7)


@pytest.mark.needs_gnu_tar
@pytest.mark.outer
@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files_as_gnu_tar_writes_them(
    opened: Opened, tmp_path: Path, ids: IdMap, format: str
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with open(tree / "sparse", "wb") as file:
        for place in (0, 1 << 20, 5 << 20):
            file.seek(place)
            file.write(os.urandom(5000))
        file.truncate(8 << 20)
    command = ["tar", "-C", str(tree), "--sparse", f"--format={format}", "-cf", "-", "sparse"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 1 << 20
    with opened() as (store, images):
        image = images.import_rootfs(io.BytesIO(data), "a:1")
        unpacked = store.layers.path(image.layers[0]) / "sparse"
        assert unpacked.read_bytes() == (tree / "sparse").read_bytes()
        assert written(store, ids, image.layers[0]) == data
