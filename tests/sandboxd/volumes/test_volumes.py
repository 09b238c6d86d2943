"""Named and anonymous volumes: made, found, mounted, kept over a restart, removed."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Conflict, NoSpace, NoSuchSnapshot, NoSuchVolume
from sandboxd.linux import mount
from sandboxd.store import Store
from sandboxd.volumes import (
    Released,
    Request,
    Surroundings,
    Volume,
    VolumeDriver,
    Volumes,
    hookimpl,
)

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

OpenVolumes = Callable[..., AbstractContextManager[tuple[Store, Volumes]]]
At = Callable[..., AbstractContextManager[Path]]


def test_a_named_volume_is_a_directory_that_outlives_the_service(
    volumes: OpenVolumes, at: At
) -> None:
    with volumes() as (store, made):
        volume = made.create("data", labels={"a": "b"})
        assert volume.mountpoint == store.root / "volumes/data/_data"
        assert stat.S_IMODE(os.stat(volume.mountpoint).st_mode) == 0o755
        assert os.stat(volume.mountpoint).st_uid == 0
        assert not volume.anonymous
        with at(made, volume) as place:
            (place / "file").write_text("kept")
    with volumes() as (_, made):
        again = made.get("data")
        assert (again.labels, again.created) == ({"a": "b"}, volume.created)
        with at(made, again) as place:
            assert (place / "file").read_text() == "kept"
        made.remove("data")
        with pytest.raises(NoSuchVolume, match="get data: no such volume"):
            made.get("data")
        assert os.listdir(store.root / "volumes") == []
    with volumes() as (_, made):
        assert made.list() == []


def test_the_same_name_again_is_the_same_volume(volumes: OpenVolumes) -> None:
    with volumes() as (_, made):
        assert made.create("data") is made.create("data", labels={"other": "label"})
        with pytest.raises(Conflict, match="volume name must be unique"):
            made.create("data", driver="socket")


def test_a_volume_without_a_name_gets_one(volumes: OpenVolumes) -> None:
    with volumes() as (_, made):
        volume = made.create()
        assert len(volume.name) == 64
        assert volume.anonymous
    with volumes() as (_, made):
        assert made.get(volume.name).anonymous


@pytest.mark.parametrize(
    "name", ["", "a", "../x", "a/b", ".hidden", "-x", "a b", "ü2", "a\n", "x" * 300, "a\0b"]
)
def test_names_that_are_no_names(volumes: OpenVolumes, tmp_path: Path, name: str) -> None:
    with volumes() as (_, made):
        if name:
            with pytest.raises(BadRequest, match=r"invalid characters|too short"):
                made.create(name)
        assert os.listdir(tmp_path / "root/volumes") == []


def test_removing_what_is_not_there(volumes: OpenVolumes) -> None:
    with volumes() as (_, made):
        made.remove("nope", force=True)
        with pytest.raises(NoSuchVolume):
            made.remove("nope")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"type": "tmpfs"}, "invalid option: 'type'"),
        ({"copy": "maybe"}, "invalid option copy=maybe"),
        ({"upper": "disk"}, "only a volume that starts from a snapshot"),
    ],
)
def test_options_that_the_driver_cannot_honour(
    volumes: OpenVolumes, tmp_path: Path, options: dict[str, str], why: str
) -> None:
    with volumes() as (_, made):
        with pytest.raises(BadRequest, match=why):
            made.create("data", options=options)
        with pytest.raises(BadRequest, match="error looking up volume plugin nfs"):
            made.create("data", driver="nfs")
        with pytest.raises(NoSuchSnapshot):
            made.create("data", snapshot="sha256:" + "a" * 64)
        assert made.list() == []
        assert os.listdir(tmp_path / "root/volumes") == []


def test_a_read_only_mount_and_a_part_of_a_volume(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made):
        volume = made.create("data")
        (volume.mountpoint / "part/deep").mkdir(parents=True)
        (volume.mountpoint / "part/file").write_text("x")
        (volume.mountpoint / "link").symlink_to("/part")
        (volume.mountpoint / "out").symlink_to("/etc")
        with at(made, volume, readonly=True) as place, pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
        for subpath in ("part", "/part/", "link", "part/deep/.."):
            with at(made, volume, subpath=subpath) as place:
                assert (place / "file").read_text() == "x"
        with (
            at(made, volume, subpath="part", readonly=True) as place,
            pytest.raises(OSError, match="Read-only"),
        ):
            (place / "file").write_text("y")
        for subpath in ("missing", "part/file", "out", "../../etc"):
            with pytest.raises(BadRequest, match="subpath"):
                made.mount(volume, subpath=subpath)


def test_no_device_of_a_volume_can_be_opened(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made), at(made, made.create("data")) as place:
        assert os.statvfs(place).f_flag & os.ST_NODEV


def test_what_a_killed_service_left_is_swept(volumes: OpenVolumes, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with volumes() as (_, made):
            made.create("kept")
            made.create(scratch=True)
            made.create("sock", driver="socket")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path / "root/volumes")) == 2
    with volumes() as (_, made):
        assert [volume.name for volume in made.list()] == ["kept"]
        assert os.listdir(tmp_path / "root/volumes") == ["kept"]
        assert os.listdir(tmp_path / "run/s") == [".trash"]


def test_a_socket_volume_has_a_short_path_that_the_user_reaches(
    volumes: OpenVolumes, at: At, tmp_path: Path
) -> None:
    with volumes() as (_, made):
        volume = made.create(driver="socket")
        assert volume.mountpoint.parent == tmp_path / "run/s"
        assert len(volume.mountpoint.name) == 10
        assert stat.S_IMODE(os.stat(volume.mountpoint).st_mode) == 0o777
        assert stat.S_IMODE(os.stat(volume.mountpoint.parent).st_mode) == 0o700
        with at(made, volume) as inside, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{inside}/s")
            listener.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(volume.mountpoint / "s"))
        with pytest.raises(BadRequest, match="cannot"):
            made.seal(volume, "sha256:" + "1" * 64, {})
        made.remove(volume.name)
        assert not volume.mountpoint.exists()
        with pytest.raises(BadRequest, match="no options"):
            made.create(driver="socket", options={"a": "b"})


def test_filters(volumes: OpenVolumes) -> None:
    with volumes() as (_, made):
        made.create("one", labels={"tier": "db", "x": ""})
        made.create("two", labels={"tier": "web"})
        made.create("sock", driver="socket")

        def found(key: str, *values: str) -> list[str]:
            return [volume.name for volume in made.list({key: values})]

        assert found("name", "o") == ["one", "sock", "two"]
        assert found("name", "^t", "^o") == ["one", "two"]
        assert found("label", "tier") == ["one", "two"]
        assert found("label", "tier=db", "x") == ["one"]
        assert found("driver", "socket") == ["sock"]
        for key, value in (("zz", "1"), ("name", "(")):
            with pytest.raises(BadRequest, match=f"invalid filter '{key}"):
                made.list({key: [value]})


class _Plugged:
    """A driver such as a package might bring."""

    name = "plugged"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restored: list[str] = []

    def persists(self, options: object) -> bool:
        return True

    def create(self, request: Request) -> Path:
        if "fail" in request.options:
            raise BadRequest("plugged", "as asked")
        path = self.directory / request.name
        path.mkdir()
        return path

    def open(self, volume: Volume, subpath: str) -> int:
        return mount.open_tree(str(volume.mountpoint), recursive=False)

    def remove(self, volume: Volume) -> None:
        os.rmdir(volume.mountpoint)

    def release(self, volume: Volume) -> Released | None:
        return None

    def restore(self, volumes: Sequence[Volume]) -> None:
        self.restored += [volume.name for volume in volumes]

    def close(self) -> None:
        pass


def test_a_driver_comes_in_through_the_hook(volumes: OpenVolumes, at: At, tmp_path: Path) -> None:
    driver = _Plugged(tmp_path)

    class Plugin:
        @hookimpl
        def sandbox_volume_drivers(self, surroundings: Surroundings) -> Sequence[VolumeDriver]:
            assert surroundings.runtime_dir == tmp_path / "run"
            return [driver]

    with volumes(plugins=[Plugin()]) as (_, made):
        volume = made.create("mine", driver="plugged")
        with at(made, volume) as place:
            assert os.listdir(place) == []
        with pytest.raises(BadRequest, match="as asked"):
            made.create("other", driver="plugged", options={"fail": ""})
    with volumes(plugins=[Plugin()]) as (_, made):
        assert driver.restored == ["mine"]
        made.remove("mine")
        assert not (tmp_path / "mine").exists()


def test_a_full_disk_is_told_and_leaves_nothing(volumes: OpenVolumes, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fd = mount.new_filesystem("tmpfs", (("size", "4m"), ("mode", "0700")))
    mount.move_mount(fd, str(root))
    with volumes() as (store, made):
        kept = made.create("kept")
        with pytest.raises(OSError, match="No space"):
            (kept.mountpoint / "filler").write_bytes(b"x" * (8 << 20))

        def create_many() -> None:
            for number in range(5000):
                made.create(f"more-{number}", labels={"text": "x" * 5000})

        with pytest.raises(NoSpace):
            create_many()
        names = {volume.name for volume in made.list()}
        assert set(os.listdir(root / "volumes")) == names
        assert set(store.database.volumes.all()) == names
        made.remove("kept")
    with volumes() as (_, made):
        made.create("works")
    mount.umount(str(root))
