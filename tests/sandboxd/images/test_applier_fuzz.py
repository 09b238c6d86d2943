"""Layers made at random: honest ones give what the specification says, others stay in their root.

Honest archives are applied, stacked, mounted and compared with a model that shares no code with the
service (see `overlay_model`). Dishonest ones are honest ones with links, names and bytes that no
writer would produce: whatever happens, it happens inside, and what is raised is BadRequest.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from sandboxd.errors import BadRequest
from sandboxd.images import Image, Images
from sandboxd.images.unpack import unpack
from sandboxd.linux import idmap, mount
from sandboxd.store import Store
from tests.sandboxd.images.overlay_model import Entry, Layer, Refused, Tree, union

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]
MakeParts = Callable[..., dict[str, bytes]]
MakeArchive = Callable[[dict[str, bytes]], io.BytesIO]
OpenImages = Callable[..., AbstractContextManager[tuple[Store, Images]]]
Member = dict[str, Any]

_TYPES = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}

_path = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join)
_mode = st.sampled_from([0o755, 0o700, 0o555, 0o4711, 0o2770, 0])
_honest = st.one_of(
    st.fixed_dictionaries({"kind": st.just("dir"), "path": _path, "mode": _mode}),
    st.fixed_dictionaries(
        {"kind": st.just("file"), "path": _path, "mode": _mode, "content": st.binary(max_size=600)}
    ),
    st.fixed_dictionaries({"kind": st.just("pipe"), "path": _path, "mode": _mode}),
    st.fixed_dictionaries({"kind": st.just("hard"), "path": _path, "content": _path}),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["whiteout", "opaque", "device"]), "path": _path}
    ),
    # A link is a leaf here, and has a name of its own: what lies behind one is another test's.
    st.fixed_dictionaries(
        {"kind": st.just("link"), "path": _path.map(lambda path: f"{path}/l"), "content": _path}
    ),
)
_layers = st.lists(st.lists(_honest, max_size=12), min_size=1, max_size=3)


def _written(tar: MakeTar, members: list[Member]) -> bytes:
    return tar(*map(_as_tar_member, members))


def _as_tar_member(member: Member) -> Member:
    kind, path = member["kind"], member["path"]
    parent, slash, name = path.rpartition("/")
    if kind in ("whiteout", "opaque"):
        mark = f".wh.{name}" if kind == "whiteout" else ".wh..wh..opq"
        return {"name": f"{parent}{slash}{mark}"}
    content = member.get("content", b"")
    field = {"data": content} if kind == "file" else {"linkname": content or ""}
    return {"name": path, "type": _TYPES[kind], "mode": member.get("mode", 0o777), **field}


def _mounted(images: Images, image: Image, place: Path) -> Tree:
    lowers = tuple(map(str, images.lowers(image)))
    nothing = place / "nothing"
    nothing.mkdir(exist_ok=True)
    target = place / "union"
    target.mkdir(exist_ok=True)
    fd = mount.overlay((*lowers, str(nothing)), None, None)
    mount.move_mount(fd, str(target))
    os.close(fd)
    try:
        return {
            str(path.relative_to(target)): _entry(path)
            for base, directories, files in os.walk(target)
            for path in (Path(base, name) for name in [*directories, *files])
            # overlayfs lists a whiteout that has nothing to hide; it cannot be opened.
            if os.path.lexists(path)
        }
    finally:
        mount.umount(str(target))


def _entry(path: Path) -> Entry:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return Entry("file", mode, path.read_bytes())
    if stat.S_ISLNK(status.st_mode):
        return Entry("link", mode, os.readlink(path))
    return Entry("dir" if stat.S_ISDIR(status.st_mode) else "pipe", mode)


def _shown(tree: Tree) -> dict[str, tuple[str, int | None, bytes | str]]:
    return {path: entry.shown() for path, entry in sorted(tree.items())}


def test_random_layers_mean_what_the_specification_says(
    tar: MakeTar, saved: MakeParts, archive: MakeArchive, opened: OpenImages, tmp_path: Path
) -> None:
    with opened() as (_, images):

        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(_layers)
        @example([[_file("a/b")], [_mark("whiteout", "a"), _file("a/c")]])
        @example([[_file("a/b")], [_file("a/c"), _mark("whiteout", "a")]])
        @example([[_file("a/b")], [_mark("opaque", "a/x"), _mark("whiteout", "b")]])
        @example([[_dir("a", 0o700), _file("a/b")], [_file("a/c")], [_file("a/d/b")]])
        @example([[_dir("a", 0o755), _dir("b", 0o700)], [_mark("opaque", "b/a")]])
        @example([[_dir("b", 0o700)], [_mark("whiteout", "b"), _file("b/a")]])
        @example(
            [
                [
                    _dir("a", 0o755),
                    _mark("device", "c"),
                    {"kind": "hard", "path": "a", "content": "c"},
                ]
            ]
        )
        @example(
            [
                [
                    _mark("device", "c"),
                    _mark("whiteout", "c"),
                    {"kind": "hard", "path": "a", "content": "c"},
                ]
            ]
        )
        @example(
            [[_mark("device", "c"), _file("c"), {"kind": "hard", "path": "a", "content": "c"}]]
        )
        def check(layers: list[list[Member]]) -> None:
            parts = saved(*(_written(tar, members) for members in layers), tags=())
            try:
                expected = union([Layer.of(members) for members in layers])
            except Refused:
                event("refused")
                with pytest.raises(BadRequest):
                    images.load(archive(parts))
                return
            (name,) = images.load(archive(parts))
            assert _shown(_mounted(images, images.get(name), tmp_path)) == _shown(expected)

        check()


def _file(path: str) -> Member:
    return {"kind": "file", "path": path, "mode": 0o644, "content": path.encode()}


def _dir(path: str, mode: int) -> Member:
    return {"kind": "dir", "path": path, "mode": mode}


def _mark(kind: str, path: str) -> Member:
    return {"kind": kind, "path": path}


_BESIDE = "{beside}"
_bad_name = st.lists(
    st.sampled_from(
        ["a", "b", "l", "..", ".", "", ".wh.a", ".wh.", ".wh..wh..opq", "\udcff", "a" * 300]
    ),
    min_size=1,
    max_size=5,
).map("/".join)  # fmt: skip
_bad_target = st.sampled_from(
    ["", "/", ".", "..", "l", "a/l", "/l/..", "../" * 9 + "{beside}", _BESIDE, f"{_BESIDE}/dir",
     f"{_BESIDE}/secret", "/proc/self/root", "/proc/self/cwd", "a\udcff", "x" * 5000]
)  # fmt: skip
_dishonest = st.fixed_dictionaries(
    {
        "name": st.one_of(_bad_name, _bad_target.filter(lambda name: 0 < len(name) < 200)),
        "type": st.sampled_from([*(bytes([flag]) for flag in b"0123456 7"), b"V"]),
        "linkname": st.one_of(_bad_target, _bad_name),
        "mode": st.sampled_from([0o777, 0o7777, 0]),
        "uid": st.sampled_from([0, 1000, 70_000, 2**31 - 1]),
        "data": st.binary(max_size=20),
    }
)

_members = st.lists(st.one_of(_dishonest, _honest.map(_as_tar_member)), min_size=1, max_size=10)
_damage = st.lists(
    st.tuples(st.integers(0, 20 * 512), st.binary(min_size=1, max_size=12)), max_size=4
)
_QUIET = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


def test_members_at_random_stay_inside(tar: MakeTar, tmp_path: Path) -> None:
    with _canary(tmp_path) as beside:

        @_QUIET
        @given(_members, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        def check(members: list[Member], format: int) -> None:
            _unpack_or_refuse(tar(*_aimed(members, beside), format=format), tmp_path)

        check()


def test_damaged_archives_stay_inside(tar: MakeTar, tmp_path: Path) -> None:
    """Bytes are changed and checksums made good again, so that the damage gets past them."""
    with _canary(tmp_path) as beside:

        @_QUIET
        @given(_members, _damage, st.integers(0, 30 * 512))
        def check(members: list[Member], damage: list[tuple[int, bytes]], length: int) -> None:
            data = bytearray(tar(*_aimed(members, beside), format=tarfile.GNU_FORMAT))
            for at, new in damage:
                data[at : at + len(new)] = new
            _unpack_or_refuse(_checksummed(data[:length]), tmp_path)

        check()


def _aimed(members: list[Member], beside: Path) -> Iterator[Member]:
    for member in members:
        names = {key: str(member.get(key, "")) for key in ("name", "linkname")}
        yield member | {key: name.replace(_BESIDE, str(beside)) for key, name in names.items()}


def _checksummed(data: bytearray) -> bytes:
    """Every block that looks like a header gets the checksum that it should have."""
    for at in range(0, len(data) - 511, 512):
        header = data[at : at + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    return bytes(data)


def _unpack_or_refuse(data: bytes, tmp_path: Path) -> None:
    """Unpack or refuse, with an error that can be sent, and look at what came of it."""
    staged = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        layer = unpack(io.BytesIO(data), staged, idmap.choose())
    except BadRequest as error:
        event(error.why[:30])
        json.dumps(error.to_wire(), ensure_ascii=False).encode()
    else:
        event("unpacked")
        json.dumps(layer.metadata)
        for path in layer.tree.rglob("*"):
            status = os.lstat(path)
            assert not path.name.startswith(".wh."), path
            assert not stat.S_ISBLK(status.st_mode), path
            assert not stat.S_ISCHR(status.st_mode) or status.st_rdev == 0, path
    finally:
        shutil.rmtree(staged)


@contextmanager
def _canary(tmp_path: Path) -> Iterator[Path]:
    """What must stay as it is, beside the directories that layers are unpacked into."""
    place = tmp_path / "beside"
    (place / "dir").mkdir(parents=True)
    (place / "secret").write_text("untouched")
    before = [os.lstat(path) for path in (place, place / "dir", place / "secret")]
    yield place
    after = [os.lstat(path) for path in (place, place / "dir", place / "secret")]
    untouched = ("st_mode", "st_uid", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns")
    for old, new in zip(before, after, strict=True):
        assert [getattr(old, name) for name in untouched] == [
            getattr(new, name) for name in untouched
        ]
    assert os.listdir(tmp_path) == ["beside"]
