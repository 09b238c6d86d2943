"""Layers unpacked from archives: faithful where they are honest, contained where they are not.

Each hostile case looks at a canary beside the root afterwards: same names, contents, modes, owners.
"""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.tar import Limits
from sandboxd.images.unpack import Unpacked, unpack
from sandboxd.linux import idmap
from sandboxd.linux.idmap import IdMap

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]
Shape = dict[str, tuple[Any, ...]]

DIR, LINK, HARD = (
    {"type": tarfile.DIRTYPE, "mode": 0o755},
    {"type": tarfile.SYMTYPE},
    {"type": tarfile.LNKTYPE},
)


def _shape(directory: Path) -> Shape:
    """Everything about a tree but times."""
    found: Shape = {}
    for base, names, files in os.walk(directory):
        for name in [*names, *files]:
            path = Path(base, name)
            status = os.lstat(path)
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            owner = (status.st_uid, status.st_gid, status.st_nlink)
            found[str(path.relative_to(directory))] = (status.st_mode, *owner, content, target)
    return found


@contextmanager
def _canary(tmp_path: Path) -> Iterator[Path]:
    """A place for a layer, and a look at everything beside it afterwards."""
    beside = tmp_path / "beside"
    (beside / "dir").mkdir(parents=True)
    (beside / "secret").write_text("untouched")
    (beside / "secret").chmod(0o600)
    before = _shape(beside)
    staged = tmp_path / "staged"
    staged.mkdir(mode=0o700)
    yield staged
    assert _shape(beside) == before
    assert {path.name for path in tmp_path.iterdir()} == {"beside", "staged"}


def _unpack(data: bytes, staged: Path, ids: IdMap | None = None) -> Unpacked:
    return unpack(BytesIO(data), staged, ids or idmap.choose())


def test_an_honest_archive_keeps_everything(tmp_path: Path, tar: MakeTar, ids: IdMap) -> None:
    data = tar(
        {"name": "./", "type": tarfile.DIRTYPE, "mode": 0o711, "mtime": 5},
        {"name": "bin", **DIR, "mtime": 1000},
        {"name": "bin/tool", "data": b"#!" * 700_000, "mode": 0o4755, "mtime": 2000, "uid": 3},
        {"name": "bin/twin", **HARD, "linkname": "bin/tool"},
        {"name": "bin/alias", **LINK, "linkname": "/bin/tool", "gid": 9, "mtime": 77},
        {"name": "shared", "type": tarfile.DIRTYPE, "mode": 0o2775, "gid": 50},
        {"name": "shared/own", "data": b"", "mode": 0},
        {"name": "closed", "type": tarfile.DIRTYPE, "mode": 0},
        {"name": "closed/inside", "data": b"x", "mode": 0o444},
        {"name": "pipe", "type": tarfile.FIFOTYPE, "mode": 0o622},
        {"name": "noted", "pax": {"SCHILY.xattr.user.note": "v"}},
    )
    with _canary(tmp_path) as staged:
        layer = _unpack(data, staged, ids)
    placed = ids.kind != "single"
    assert stat.S_IMODE(os.lstat(layer.tree).st_mode) == 0o711
    tool, alias = os.lstat(layer.tree / "bin/tool"), os.lstat(layer.tree / "bin/alias")
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_nlink) == (0o4755, 3 * placed, 2)
    assert (tool.st_mtime, alias.st_mtime, alias.st_gid) == (2000, 77, 9 * placed)
    assert os.path.samefile(layer.tree / "bin/tool", layer.tree / "bin/twin")
    assert os.readlink(layer.tree / "bin/alias") == "/bin/tool"
    assert os.stat(layer.tree / "bin").st_mtime == 1000
    assert stat.S_IMODE(os.stat(layer.tree / "shared").st_mode) == 0o2775
    assert os.stat(layer.tree / "shared/own").st_gid == 0
    assert stat.S_IMODE(os.stat(layer.tree / "closed").st_mode) == 0
    assert (layer.tree / "closed/inside").read_bytes() == b"x"
    assert stat.S_ISFIFO(os.stat(layer.tree / "pipe").st_mode)
    assert stat.S_IMODE(os.stat(layer.tree / "pipe").st_mode) == 0o622
    assert os.getxattr(layer.tree / "noted", "user.note") == b"v"
    expected = {} if placed else {"bin/tool": [3, 0], "bin/alias": [0, 9], "shared": [0, 50]}
    assert layer.metadata["owners"] == expected
    assert (layer.metadata["entries"], layer.metadata["implied"]) == (11, [])


def test_owners_that_the_map_lacks_fall_to_nobody_without_set_id_bits(
    tmp_path: Path, tar: MakeTar, ids: IdMap
) -> None:
    data = tar({"name": "far", "mode": 0o6755, "pax": {"uid": "4294967295", "gid": "4294967296"}})
    layer = _unpack(data, tmp_path, ids)
    status = os.stat(layer.tree / "far")
    if ids.kind == "single":
        assert (status.st_uid, status.st_gid) == (0, 0)
    elif ids.kind == "subids":
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (65534, 0o755)
    assert layer.metadata["owners"] == {"far": [4294967295, 4294967296]}


_HOSTILE: dict[str, list[dict[str, Any]]] = {
    "climbs": [{"name": "../beside/secret", "data": b"!"}],
    "climbs inside": [{"name": "a/../../beside/secret", "data": b"!"}],
    "climbs as a directory": [{"name": "..", **DIR}],
    "is absolute": [{"name": "/{beside}/secret", "data": b"!"}],
    "file through an absolute link": [
        {"name": "out", **LINK, "linkname": "{beside}"},
        {"name": "out/secret", "data": b"!"},
    ],
    "file through a relative link": [
        {"name": "out", **LINK, "linkname": "../../beside"},
        {"name": "out/secret", "data": b"!"},
    ],
    "file through two links": [
        {"name": "a", **DIR},
        {"name": "a/up", **LINK, "linkname": ".."},
        {"name": "a/out", **LINK, "linkname": "up/../../../beside"},
        {"name": "a/out/secret", "data": b"!"},
    ],
    "file over a link": [
        {"name": "secret", **LINK, "linkname": "{beside}/secret"},
        {"name": "secret", "data": b"!"},
    ],
    "mode of a link's target": [
        {"name": "secret", **LINK, "linkname": "{beside}/secret", "mode": 0o777},
        {"name": "dir", **LINK, "linkname": "{beside}/dir"},
        {"name": "dir", "type": tarfile.DIRTYPE, "mode": 0o777},
    ],
    "link as the root": [
        {"name": ".", **LINK, "linkname": "{beside}"},
        {"name": "./secret", "data": b"!"},
    ],
    "link named slash dot": [
        {"name": "/.", **LINK, "linkname": "{beside}"},
        {"name": "secret", "data": b"!"},
    ],
    "hard link out": [
        {"name": "own", **HARD, "linkname": "{beside}/secret"},
        {"name": "own", "data": b"!"},
    ],
    "hard link that climbs": [{"name": "own", **HARD, "linkname": "../../beside/secret"}],
    "hard link through a link": [
        {"name": "out", **LINK, "linkname": "{beside}"},
        {"name": "own", **HARD, "linkname": "out/secret"},
    ],
    "hard link to a link": [
        {"name": "out", **LINK, "linkname": "{beside}/secret"},
        {"name": "own", **HARD, "linkname": "out"},
        {"name": "own", "data": b"!"},
    ],
    "hard link to a directory": [{"name": "d", **DIR}, {"name": "own", **HARD, "linkname": "d"}],
    "whiteout out": [{"name": "../beside/.wh.secret"}],
    "whiteout through a link": [
        {"name": "out", **LINK, "linkname": "{beside}"},
        {"name": "out/.wh.secret"},
    ],
    "opaque mark through a link": [
        {"name": "out", **LINK, "linkname": "{beside}/dir"},
        {"name": "out/.wh..wh..opq"},
    ],
    "whiteout of nothing": [{"name": ".wh."}],
    "whiteout of the root": [{"name": ".wh.."}],
    "whiteout of the parent": [{"name": "a/.wh..."}],
    "directory becomes a link in mid-way": [
        {"name": "d/e", "data": b"x"},
        {"name": "d", **LINK, "linkname": "{beside}"},
        {"name": "d/secret", "data": b"!"},
    ],
    "link loop": [
        {"name": "a", **LINK, "linkname": "b"},
        {"name": "b", **LINK, "linkname": "a"},
        {"name": "a/secret", "data": b"!"},
    ],
    "magic link": [
        {"name": "p", **LINK, "linkname": "/proc/self/cwd"},
        {"name": "p/secret", "data": b"!"},
    ],
    "file as a directory": [{"name": "f", "data": b"x"}, {"name": "f/secret", "data": b"!"}],
    "a name too long": [{"name": "n" * 300, "data": b"!"}],
    "too deep": [{"name": "d/" * 1000 + "f", "data": b"!"}],
    "a name of NULs and newlines": [{"name": "a\n\t\x01b", "data": b"!"}],
}


@pytest.mark.parametrize("case", _HOSTILE)
def test_a_hostile_archive_is_refused_or_stays_inside(
    tmp_path: Path, tar: MakeTar, case: str
) -> None:
    beside = str(tmp_path / "beside")
    members = [
        {
            key: value.replace("{beside}", beside) if isinstance(value, str) else value
            for key, value in member.items()
        }
        for member in _HOSTILE[case]
    ]
    with _canary(tmp_path) as staged:
        try:
            layer = _unpack(tar(*members), staged)
        except BadRequest:
            return
        assert not os.path.islink(layer.tree)
        for path in layer.tree.rglob("*"):
            if stat.S_ISREG(os.lstat(path).st_mode):
                assert path.read_bytes() != b"untouched"


def test_a_parent_that_is_a_link_is_followed_inside_the_layer(tmp_path: Path, tar: MakeTar) -> None:
    data = tar(
        {"name": "usr/lib", **DIR},
        {"name": "lib", **LINK, "linkname": "/usr/lib"},
        {"name": "var/run", **LINK, "linkname": "../../../run"},
        {"name": "lib/x", "data": b"x"},
        {"name": "var/run/y", "data": b"y"},
    )
    layer = _unpack(data, tmp_path)
    assert (layer.tree / "usr/lib/x").read_bytes() == b"x"
    assert (layer.tree / "run/y").read_bytes() == b"y"
    assert layer.metadata["implied"] == ["run", "usr", "var"]


def test_directories_swapped_for_links_meanwhile_lead_nowhere(tmp_path: Path, tar: MakeTar) -> None:
    names = [f"d{number % 7}/e{number % 3}/f{number}" for number in range(3000)]
    data = tar(*({"name": name, "data": b"!"} for name in names))
    stop = threading.Event()

    def swap(tree: Path, outside: Path) -> None:
        while not stop.is_set():
            for number in range(7):
                victim, aside = tree / f"d{number}", tree / f"aside{number}"
                try:
                    os.rename(victim, aside)
                    os.symlink(outside, victim)
                    os.unlink(victim)
                    os.rename(aside, victim)
                except OSError:
                    continue

    with _canary(tmp_path) as staged:
        swapper = threading.Thread(target=swap, args=(staged / "tree", tmp_path / "beside"))
        swapper.start()
        try:
            _unpack(data, staged)
        except Exception:
            pass
        finally:
            stop.set()
            swapper.join()


def test_whiteouts_and_opaque_directories(tmp_path: Path, tar: MakeTar) -> None:
    data = tar(
        {"name": "gone/.wh.file"},
        {"name": "early/.wh..wh..opq"},
        {"name": "early/kept", "data": b"x"},
        {"name": "late/kept", "data": b"x"},
        {"name": "late/.wh..wh..opq"},
        {"name": ".wh..wh.plnk", **DIR},
        {"name": ".wh..wh.aufs", "data": b"x"},
    )
    layer = _unpack(data, tmp_path)
    hidden = os.lstat(layer.tree / "gone/file")
    assert stat.S_ISCHR(hidden.st_mode)
    assert hidden.st_rdev == 0
    for name in ("early", "late"):
        assert os.getxattr(layer.tree / name, "user.overlay.opaque") == b"y"
        assert os.listdir(layer.tree / name) == ["kept"]
    assert sorted(os.listdir(layer.tree)) == ["early", "gone", "late"]
    assert layer.metadata["opaque_root"] is False


@pytest.mark.parametrize("first", ["whiteout", "entry"])
def test_a_whiteout_never_hides_an_entry_of_its_own_layer(
    tmp_path: Path, tar: MakeTar, first: str
) -> None:
    members = [{"name": "d/.wh.f"}, {"name": "d/f", "data": b"x"}, {"name": "d/.wh.sub"},
               {"name": "d/sub/g", "data": b"y"}]  # fmt: skip
    if first == "entry":
        members.reverse()
    layer = _unpack(tar(*members), tmp_path)
    assert (layer.tree / "d/f").read_bytes() == b"x"
    assert (layer.tree / "d/sub/g").read_bytes() == b"y"


def test_an_opaque_root_is_told(tmp_path: Path, tar: MakeTar) -> None:
    layer = _unpack(tar({"name": ".wh..wh..opq"}, {"name": "f", "data": b"x"}), tmp_path)
    assert layer.metadata["opaque_root"] is True
    assert "user.overlay.opaque" not in os.listxattr(layer.tree)


def test_what_a_user_namespace_cannot_have_is_left_out_and_told(
    tmp_path: Path, tar: MakeTar
) -> None:
    secret = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.overlay.redirect": "/etc",
              "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.ok": "v"}  # fmt: skip
    data = tar(
        {"name": "null", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666},
        {"name": "hidden", "type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0},
        {"name": "disk", "type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0},
        {"name": "ping", "data": b"x", "pax": secret},
        {"name": "dir", **DIR, "pax": {"SCHILY.xattr.user.overlay.opaque": "y"}},
    )
    layer = _unpack(data, tmp_path)
    assert sorted(os.listdir(layer.tree)) == ["dir", "ping"]
    assert os.listxattr(layer.tree / "ping") == ["user.ok"]
    assert os.listxattr(layer.tree / "dir") == []
    assert layer.metadata["skipped"] == {
        "null": ["device"],
        "hidden": ["device"],
        "disk": ["device"],
        "ping": [
            "attribute security.capability",
            "attribute user.overlay.redirect",
            "attribute trusted.overlay.opaque",
        ],
        "dir": ["attribute user.overlay.opaque"],
    }


def test_the_last_of_several_entries_wins(tmp_path: Path, tar: MakeTar) -> None:
    data = tar(
        {"name": "a", "data": b"first"},
        {"name": "a", "data": b"second", "mode": 0o600},
        {"name": "b/c/d", "data": b"x"},
        {"name": "b", "data": b"now a file"},
        {"name": "e", "data": b"x"},
        {"name": "e", **DIR},
        {"name": "e/f", "data": b"x"},
        {"name": "g", "type": tarfile.DIRTYPE, "mode": 0o700},
        {"name": "g/h", "data": b"x"},
        {"name": "g", "type": tarfile.DIRTYPE, "mode": 0o750},
        {"name": "k", "data": b"x"},
        {"name": "k", **LINK, "linkname": "a"},
        {"name": "m/n", "data": b"x"},
        {"name": "m", "data": b"x"},
        {"name": "m", **DIR},
    )
    tree = _unpack(data, tmp_path).tree
    assert (tree / "a").read_bytes() == b"second"
    assert (tree / "b").read_bytes() == b"now a file"
    assert (tree / "e/f").is_file()
    assert (tree / "g/h").is_file()
    assert stat.S_IMODE(os.stat(tree / "g").st_mode) == 0o750
    assert os.readlink(tree / "k") == "a"
    assert os.listdir(tree / "m") == []
    assert stat.S_IMODE(os.stat(tree / "m").st_mode) == 0o755


def test_a_set_group_id_directory_passes_nothing_on(tmp_path: Path, tar: MakeTar) -> None:
    data = tar(
        {"name": "s", "type": tarfile.DIRTYPE, "mode": 0o2777},
        {"name": "s/f", "data": b"x"},
        {"name": "s/d", **DIR},
    )
    tree = _unpack(data, tmp_path).tree
    assert stat.S_IMODE(os.stat(tree / "s/d").st_mode) == 0o755


def test_more_directories_than_descriptors(tmp_path: Path, tar: MakeTar) -> None:
    names = [f"d{number}/e/f" for number in range(1500)]
    data = tar(*({"name": name, "data": b"x"} for name in [*names, *names]))
    before = len(os.listdir("/proc/self/fd"))
    tree = _unpack(data, tmp_path).tree
    assert all((tree / name).is_file() for name in names)
    # Fewer where the collector met something of the parent's.
    assert len(os.listdir("/proc/self/fd")) <= before


def test_bombs_are_bounded(tmp_path: Path, tar: MakeTar) -> None:
    data = tar(*({"name": f"{number}", "data": b"x" * 1000} for number in range(50)))
    for number, limits in enumerate((Limits(size=10_000), Limits(members=10))):
        staged = tmp_path / str(number)
        staged.mkdir()
        with pytest.raises(BadRequest, match="more than"):
            unpack(BytesIO(data), staged, idmap.choose(), limits)


def test_odd_file_names_are_kept(tmp_path: Path, tar: MakeTar) -> None:
    names = ["a b", "a\nb", "ü", os.fsdecode(b"\xff\xfe"), "-rf", "*", "$(x)", "..a", "a..", "\\"]
    data = tar(*({"name": name, "data": b"x"} for name in names), format=tarfile.GNU_FORMAT)
    assert set(os.listdir(_unpack(data, tmp_path).tree)) == set(names)
