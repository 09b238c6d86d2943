"""Which ids a user may give away, and the outer namespace under each map."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from sandboxd.linux import idmap
from sandboxd.linux.idmap import IdMap


def _name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("{name}:100000:65536\n", (100000, 65536)),
        ("{uid}:200000:65536\n", (200000, 65536)),
        ("other:100000:65536\n{name}:300000:131072\n", (300000, 65536)),
        ("{name}:100000:1000\n{name}:400000:65536\n", (400000, 65536)),
        ("{name}:100000:1000\n", None),
        ("other:100000:65536\n", None),
        ("# a comment\n\nbroken\n{name}:500000:65536\n", (500000, 65536)),
        ("", None),
    ],
)
def test_the_first_full_range_is_taken(
    tmp_path: Path, lines: str, expected: tuple[int, int] | None
) -> None:
    path = tmp_path / "subuid"
    path.write_text(lines.format(name=_name(), uid=os.getuid()))
    assert idmap.subordinate_range(str(path)) == expected


def test_no_file_is_no_range(tmp_path: Path) -> None:
    assert idmap.subordinate_range(str(tmp_path / "missing")) is None


def test_a_container_gets_the_same_ids_once_more() -> None:
    ids = IdMap("subids", ((0, 1001, 1), (1, 100000, 65536)), ((0, 1001, 1), (1, 100000, 65536)))
    assert ids.size == 65537
    assert ids.nested() == ("0 0 1\n1 1 65536\n",) * 2
    assert idmap.single().nested() == ("0 0 1\n",) * 2


@pytest.mark.needs_userns
@pytest.mark.outer
def test_inside_we_are_root_and_the_map_is_written(ids: IdMap) -> None:
    assert (os.getuid(), os.getgid(), os.geteuid(), os.getegid()) == (0, 0, 0, 0)
    with open("/proc/self/uid_map") as lines:
        assert [tuple(map(int, line.split())) for line in lines] == [*ids.uids]


@pytest.mark.needs_userns
@pytest.mark.outer
def test_an_id_beyond_the_map_does_not_exist(ids: IdMap, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    if ids.kind == "single":
        with pytest.raises(OSError, match="Invalid argument"):
            os.chown(path, 1, 1)
    else:
        os.chown(path, 1, 1)
        assert path.stat().st_uid == 1


@pytest.mark.needs_userns
@pytest.mark.outer
def test_only_a_single_map_denies_setgroups(ids: IdMap) -> None:
    denied = Path("/proc/self/setgroups").read_text().strip()
    assert denied == ("deny" if ids.kind == "single" else "allow")


def test_a_map_that_cannot_be_written_is_found_out_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "newuidmap"
    tool.write_text("#!/bin/sh\necho write to uid_map failed >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    extents = ((0, os.getuid(), 1), (1, 100000, 65536))
    before = os.readlink("/proc/self/ns/user")
    complaint = idmap.complaint_about(idmap.IdMap("subids", extents, extents))
    assert "write to uid_map failed" in complaint
    assert os.readlink("/proc/self/ns/user") == before
    assert idmap.complaint_about(idmap.single()) == ""
