"""Bind mounts: host paths as the user resolves them, and Docker's words where nothing is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Forbidden
from sandboxd.linux import mount
from sandboxd.volumes.binds import bind

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


def _at(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}")


def test_a_directory_a_file_and_a_socket(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("x")
    fd, is_file = bind(str(tmp_path / "dir"), readonly=False, create=False)
    assert (is_file, os.listdir(_at(fd))) == (False, ["file"])
    (_at(fd) / "new").touch()
    assert (tmp_path / "dir/new").exists()
    fd, is_file = bind(str(tmp_path / "dir/file"), readonly=False, create=False)
    assert is_file
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        _, is_file = bind(str(tmp_path / "s"), readonly=False, create=False)
        assert is_file


def test_links_and_dots_are_resolved_as_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "dir")
    for source in ("link", "dir/.", "dir/../dir/", "missing/../dir"):
        fd, _ = bind(f"{tmp_path}/{source}", readonly=False, create=False)
        assert os.listdir(_at(fd)) == ["file"]


def test_read_only_counts_for_what_is_mounted_below(tmp_path: Path) -> None:
    (tmp_path / "dir/below").mkdir(parents=True)
    mount.move_mount(mount.new_filesystem("tmpfs"), str(tmp_path / "dir/below"))
    fd, _ = bind(str(tmp_path / "dir"), readonly=True, create=False)
    for place in (_at(fd), _at(fd) / "below"):
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
    (tmp_path / "dir/below/still").touch()
    mount.umount(str(tmp_path / "dir/below"))


def test_a_missing_source_is_refused_or_made(tmp_path: Path) -> None:
    source = str(tmp_path / "a/b")
    with pytest.raises(BadRequest, match=f"bind source path does not exist: {source}"):
        bind(source, readonly=False, create=False)
    _, is_file = bind(source, readonly=False, create=True)
    assert not is_file
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize("source", ["relative", "", "./x", "/a\0b"])
def test_only_absolute_paths(source: str) -> None:
    with pytest.raises(BadRequest, match="invalid bind source"):
        bind(source, readonly=False, create=True)


def test_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for create in (False, True):
        with pytest.raises(BadRequest, match="does not exist"):
            bind(str(tmp_path / "file/below"), readonly=False, create=create)


@pytest.mark.needs_ordinary_user
def test_what_the_user_may_not_reach_is_forbidden() -> None:
    for source in ("/root/x", "/new-in-root"):
        with pytest.raises(Forbidden, match=source):
            bind(source, readonly=False, create=True)


def test_no_descriptor_is_lost_by_errors(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(BadRequest):
            bind(str(tmp_path / "missing"), readonly=True, create=False)
    # Fewer where the collector met something of the parent's.
    assert len(os.listdir("/proc/self/fd")) <= before
