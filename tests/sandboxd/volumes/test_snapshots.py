"""Copy-on-write volumes: nothing is copied up front, nothing leaks between them, seals stack."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Conflict
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Snapshot, Store
from sandboxd.volumes import Volume, Volumes

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

OpenVolumes = Callable[..., AbstractContextManager[tuple[Store, Volumes]]]
At = Callable[..., AbstractContextManager[Path]]

K1, K2, K3 = (f"sha256:{digit * 64}" for digit in "123")


def _sealed(made: Volumes, at: At, key: str = K1) -> Snapshot:
    volume = made.create(scratch=True)
    with at(made, volume) as place:
        (place / "dir/sub").mkdir(parents=True)
        (place / "dir/file").write_text("original")
        (place / "dir/sub/other").write_text("other")
        (place / "link").symlink_to("dir/file")
        (place / "big").write_bytes(b"\0" * (1 << 20))
    os.chmod(volume.mountpoint, 0o700)
    return made.seal(volume, key, {"steps": 1})


def _mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def test_each_volume_has_the_content_and_its_own_changes(
    volumes: OpenVolumes, at: At, ids: IdMap
) -> None:
    with volumes(ids) as (store, made):
        snapshot = _sealed(made, at)
        assert (snapshot.size, snapshot.spec) == ((1 << 20) + 13, {"steps": 1})
        first, second = made.create(snapshot=K1), made.create(snapshot=K1)
        with at(made, first) as one, at(made, second) as two:
            assert stat.S_IMODE(os.stat(one).st_mode) == 0o700
            (one / "dir/file").write_text("changed")
            (one / "dir/sub/other").unlink()
            (one / "dir/sub").rmdir()
            (one / "new").write_text("new")
            assert (two / "dir/file").read_text() == "original"
            assert (two / "dir/sub/other").read_text() == "other"
            assert not (two / "new").exists()
            assert (one / "link").read_text() == "changed"
        with at(made, first) as again:
            assert (again / "dir/file").read_text() == "changed"
            assert not (again / "dir/sub").exists()
        assert (snapshot.layers[0] / "dir/file").read_text() == "original"
        assert store.snapshots.get(K1) == snapshot


def test_containers_that_share_a_volume_see_each_others_writes(
    volumes: OpenVolumes, at: At
) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        volume = made.create(snapshot=K1)
        with at(made, volume) as one, at(made, volume, readonly=True) as two:
            (one / "dir/file").write_text("changed")
            assert (two / "dir/file").read_text() == "changed"
            with pytest.raises(OSError, match="Read-only"):
                (two / "dir/file").write_text("x")
        with at(made, volume, subpath="dir") as part:
            assert (part / "file").read_text() == "changed"


def test_nothing_is_copied_before_the_first_write(
    volumes: OpenVolumes, at: At, tmp_path: Path
) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        volume = made.create(snapshot=K1, options={"upper": "disk"})
        upper = tmp_path / "root/volumes" / volume.name / "upper"
        with at(made, volume) as place:
            assert (place / "big").stat().st_size == 1 << 20
            assert list(upper.rglob("*")) == []
            with open(place / "big", "r+b") as file:
                file.write(b"1")
            assert [path.name for path in upper.rglob("*")] == ["big"]


def test_removing_leaves_no_mount_and_no_file(volumes: OpenVolumes, at: At, tmp_path: Path) -> None:
    with volumes() as (store, made):
        _sealed(made, at)
        before = _mounts()
        for options in ({"upper": "disk"}, {"upper": "memory"}, {"copy": "true"}, {}):
            volume = made.create(snapshot=K1, options=options)
            with at(made, volume) as place:
                (place / "new").write_text("x")
            made.remove(volume.name)
            assert _mounts() == before
        assert os.listdir(store.root / "volumes") == []
        assert os.listdir(tmp_path / "run/tmp/u") == os.listdir(tmp_path / "run/tmp/m") == []
        store.snapshots.delete(K1)
    assert not any(str(tmp_path) in target for target in _mounts())
    assert os.listdir(tmp_path / "root/snapshots") == []
    assert os.listdir(tmp_path / "root/trash") == []


def test_a_mount_that_a_container_still_has_works_on_after_removal(
    volumes: OpenVolumes, at: At
) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        volume = made.create(snapshot=K1)
        with at(made, volume) as place:
            made.remove(volume.name)
            assert (place / "dir/file").read_text() == "original"


def test_a_named_one_outlives_the_service_and_one_without_a_name_does_not(
    volumes: OpenVolumes, at: At
) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        named, anonymous = made.create("named", snapshot=K1), made.create(snapshot=K1)
        memory = made.create("memory", snapshot=K1, options={"upper": "memory"})
        assert (named.ephemeral, anonymous.ephemeral, memory.ephemeral) == (False, True, True)
        for volume in (named, anonymous, memory):
            with at(made, volume) as place:
                (place / "dir/file").write_text("changed")
                (place / "big").unlink()
    with volumes() as (store, made):
        assert [volume.name for volume in made.list()] == ["named"]
        with at(made, made.get("named")) as place:
            assert (place / "dir/file").read_text() == "changed"
            assert sorted(os.listdir(place)) == ["dir", "link"]
        with pytest.raises(Conflict, match="named"):
            store.snapshots.delete(K1)
        assert store.collect(unused_for=-1).snapshots == ()
        made.remove("named")
        store.snapshots.delete(K1)


def test_a_snapshot_stays_while_a_volume_starts_from_it(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (store, made):
        _sealed(made, at)
        first, second = made.create(snapshot=K1), made.create(snapshot=K1)
        made.remove(first.name)
        with pytest.raises(Conflict, match="in use"):
            store.snapshots.delete(K1)
        assert store.collect(unused_for=-1).snapshots == ()
        made.remove(second.name)
        assert store.collect(unused_for=-1).snapshots == (K1,)


@pytest.mark.parametrize("upper", ["disk", "memory"])
def test_sealing_a_volume_stacks_its_changes_on_its_snapshot(
    volumes: OpenVolumes, at: At, upper: str
) -> None:
    with volumes() as (store, made):
        base = _sealed(made, at)
        volume = made.create(snapshot=K1, options={"upper": upper})
        with at(made, volume) as place:
            (place / "dir/file").write_text("changed")
            (place / "big").unlink()
            (place / "dir/sub/other").unlink()
            (place / "dir/sub").rmdir()
            (place / "dir/sub").mkdir()
            (place / "dir/sub/own").write_text("own")
            os.chmod(place / "dir", 0o711)
            os.link(place / "dir/file", place / "twin")
            os.setxattr(place / "dir/file", "user.note", b"v")
        top = made.seal(volume, K2, {})
        assert top.layers[1:] == base.layers
        assert volume.name not in {each.name for each in made.list()}
        copy = made.create(snapshot=K2, options={"copy": "true"})
        for volume in (made.create(snapshot=K2), copy):
            with at(made, volume) as place:
                assert sorted(os.listdir(place)) == ["dir", "link", "twin"]
                assert (place / "dir/file").read_text() == "changed"
                assert os.getxattr(place / "dir/file", "user.note") == b"v"
                assert os.path.samefile(place / "dir/file", place / "twin")
                assert os.listdir(place / "dir/sub") == ["own"]
                assert stat.S_IMODE(os.stat(place / "dir").st_mode) == 0o711
                assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
        assert os.listxattr(copy.mountpoint / "dir/sub") == []
        third = made.create(snapshot=K2, scratch=True)
        with at(made, third) as place:
            (place / "third").touch()
        assert len(made.seal(third, K3, {}).layers) == 3
        assert os.listdir(store.root / "staging") == []


def test_two_equal_changes_are_one_tree(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        sealed = []
        for key, upper in ((K2, "disk"), (K3, "memory")):
            volume = made.create(snapshot=K1, options={"upper": upper})
            with at(made, volume) as place:
                (place / "dir/file").write_text("changed")
                (place / "big").unlink()
            sealed.append(made.seal(volume, key, {}))
        assert sealed[0].digest == sealed[1].digest
        assert sealed[0].layers == sealed[1].layers


def test_a_failed_seal_keeps_the_volume(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        for volume in (made.create(scratch=True), made.create(snapshot=K1)):
            with at(made, volume) as place:
                (place / "mine").write_text("x")
            with pytest.raises(BadRequest, match="invalid digest"):
                made.seal(volume, "not a key", {})
            with at(made, volume) as place:
                assert (place / "mine").read_text() == "x"


def test_the_same_name_with_another_snapshot_is_a_conflict(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made):
        _sealed(made, at)
        _sealed(made, at, K2)
        volume = made.create("data", snapshot=K1)
        assert made.create("data", snapshot=K1) is volume
        for other in (K2, None):
            with pytest.raises(Conflict, match="must be unique"):
                made.create("data", snapshot=other)


@pytest.mark.needs_subids
def test_owners_come_along(volumes: OpenVolumes, at: At) -> None:
    with volumes() as (_, made):
        scratch: Volume = made.create(scratch=True)
        with at(made, scratch) as place:
            (place / "pg").mkdir(mode=0o700)
            (place / "pg/f").write_text("x")
            for path in (place / "pg/f", place / "pg", place):
                os.chown(path, 70, 71)
        made.seal(scratch, K1, {})
        for options in ({}, {"upper": "disk"}, {"copy": "true"}):
            with at(made, made.create(snapshot=K1, options=options)) as place:
                for path in (place / "pg/f", place / "pg", place):
                    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (70, 71)
                (place / "pg/f").write_text("y")
