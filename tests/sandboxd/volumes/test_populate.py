"""Docker's pre-population: an empty volume gets what the image has where it is mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandboxd.images import Images
from sandboxd.linux import idmap
from sandboxd.store import Store
from sandboxd.volumes import Volume, Volumes

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

OpenVolumes = Callable[..., AbstractContextManager[tuple[Store, Volumes]]]


def _whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _opaque(path: Path) -> None:
    os.setxattr(path, "user.overlay.opaque", b"y")


def _layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers, topmost first, over `/srv/data`."""
    base, top = tmp_path / "base", tmp_path / "top"
    data = base / "srv/data"
    (data / "kept/deep").mkdir(parents=True)
    (data / "kept/deep/file").write_text("base")
    (data / "changed").write_text("base")
    (data / "gone").write_text("base")
    (data / "replaced").mkdir()
    (data / "replaced/old").write_text("base")
    (data / "sock").mkdir()
    (data / "link").symlink_to("/etc/passwd")
    os.mkfifo(data / "fifo")
    os.chmod(data, 0o1751)
    os.utime(data / "changed", (5, 5))
    above = top / "srv/data"
    (above / "replaced").mkdir(parents=True)
    _opaque(above / "replaced")
    (above / "replaced/new").write_text("top")
    (above / "changed").write_text("top")
    os.utime(above / "changed", (7, 7))
    os.chmod(above / "changed", 0o4711)
    os.setxattr(above / "changed", "user.note", b"v")
    os.link(above / "changed", above / "twin")
    _whiteout(above / "gone")
    os.chmod(above, 0o1751)
    return top, base


def _filled(made: Volumes, lowers: tuple[Path, ...], path: str) -> Volume:
    volume = made.create()
    made.populate(volume, lowers, path)
    return volume


def test_the_union_of_the_layers_is_copied(volumes: OpenVolumes, tmp_path: Path) -> None:
    lowers = _layers(tmp_path)
    with volumes() as (_, made):
        place = _filled(made, lowers, "/srv/data").mountpoint
        names = ["changed", "fifo", "kept", "link", "replaced", "sock", "twin"]
        assert sorted(os.listdir(place)) == names
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o1751
        changed = os.stat(place / "changed")
        assert (place / "changed").read_text() == "top"
        assert (stat.S_IMODE(changed.st_mode), changed.st_mtime) == (0o4711, 7)
        assert os.getxattr(place / "changed", "user.note") == b"v"
        assert os.path.samefile(place / "changed", place / "twin")
        assert (place / "kept/deep/file").read_text() == "base"
        assert os.listdir(place / "replaced") == ["new"]
        assert os.listxattr(place / "replaced") == []
        assert os.readlink(place / "link") == "/etc/passwd"
        assert stat.S_ISFIFO(os.stat(place / "fifo").st_mode)


@pytest.mark.needs_subids
def test_owners_come_along(volumes: OpenVolumes, tmp_path: Path) -> None:
    data = tmp_path / "base/data"
    data.mkdir(parents=True)
    (data / "file").touch()
    os.chown(data / "file", 33, 34)
    os.chown(data, 70, 71)
    with volumes() as (_, made):
        place = _filled(made, (tmp_path / "base",), "/data").mountpoint
        assert (os.stat(place).st_uid, os.stat(place).st_gid) == (70, 71)
        assert (os.stat(place / "file").st_uid, os.stat(place / "file").st_gid) == (33, 34)


def test_a_volume_that_has_content_is_left_alone(volumes: OpenVolumes, tmp_path: Path) -> None:
    lowers = _layers(tmp_path)
    with volumes() as (_, made):
        volume = made.create()
        (volume.mountpoint / "own").touch()
        made.populate(volume, lowers, "/srv/data")
        assert os.listdir(volume.mountpoint) == ["own"]
        assert stat.S_IMODE(os.stat(volume.mountpoint).st_mode) == 0o755


@pytest.mark.parametrize(
    "path", ["/missing", "/srv/data/changed", "/srv/data/gone", "/srv/data/link", "/loop/x"]
)
def test_where_the_image_has_no_directory_nothing_happens(
    volumes: OpenVolumes, tmp_path: Path, path: str
) -> None:
    lowers = _layers(tmp_path)
    (tmp_path / "base/loop").symlink_to("loop")
    with volumes() as (_, made):
        assert os.listdir(_filled(made, lowers, path).mountpoint) == []
        assert os.listdir(_filled(made, (), path).mountpoint) == []


def test_links_on_the_way_are_followed_inside_the_image_only(
    volumes: OpenVolumes, tmp_path: Path
) -> None:
    top, base = _layers(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (base / "var").symlink_to("/srv")
    (top / "opt").symlink_to("../../../srv")
    (top / "escape").symlink_to(outside)
    (top / "climb").symlink_to("../outside")
    with volumes() as (_, made):
        for path in ("/var/data", "/opt/data", "/srv/../var/./data", "/../../srv/data"):
            assert "changed" in os.listdir(_filled(made, (top, base), path).mountpoint)
        for path in ("/escape", "/climb"):
            assert os.listdir(_filled(made, (top, base), path).mountpoint) == []


def test_sockets_and_devices_stay_behind_and_holes_stay_holes(
    volumes: OpenVolumes, tmp_path: Path
) -> None:
    import socket

    data = tmp_path / "base/data"
    data.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(data, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{directory}/sock")
        os.close(directory)
    with open(data / "sparse", "wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"end")
    with volumes() as (_, made):
        place = _filled(made, (tmp_path / "base",), "/data").mountpoint
        assert os.listdir(place) == ["sparse"]
        assert (place / "sparse").read_bytes() == (data / "sparse").read_bytes()


def test_from_the_machines_root_no_secret_is_copied(volumes: OpenVolumes) -> None:
    with volumes() as (store, made):
        images = Images(store, idmap.choose())
        lowers = images.lowers(images.get("host"))
        names = os.listdir(_filled(made, lowers, "/etc/security").mountpoint)
        assert "opasswd" not in names
        for path in ("/home", "/root", "/tmp", "/run", "/var/tmp", "/var/log", "/etc/ssl/private"):
            assert os.listdir(_filled(made, lowers, path).mountpoint) == []
        images.close()


@pytest.mark.needs_ordinary_user
def test_what_the_user_may_not_read_is_left_out(volumes: OpenVolumes) -> None:
    with volumes() as (_, made):
        place = _filled(made, (Path("/"),), "/etc/ssl").mountpoint
        assert {os.lstat(path).st_uid for path in place.rglob("*")} <= {0}
        names = set(os.listdir("/etc/ssl"))
        assert set(os.listdir(place)) <= names
        assert "private" not in os.listdir(place) or os.access("/etc/ssl/private", os.R_OK)
