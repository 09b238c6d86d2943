"""The state root itself: private, fit for overlayfs, and still usable when the disk is full."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Forbidden, NoSpace, SandboxError
from sandboxd.linux import idmap, mount
from sandboxd.store import Store
from sandboxd.store.digests import digest_of

_MIB = 1 << 20


def test_everything_in_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    os.umask(0o022)
    store = Store(tmp_path / "root", idmap.choose())
    assert stat.S_IMODE(os.stat(store.root).st_mode) == 0o700


def test_a_root_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    with pytest.raises(Forbidden, match="chmod 700"):
        Store(root, idmap.choose())


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b"])
def test_a_root_that_overlayfs_cannot_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="SANDBOX_ROOT"):
        Store(tmp_path / name, idmap.choose())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="file"):
        Store(tmp_path / "file/root", idmap.choose())


def test_staging_is_private_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    with store.staging("work") as staged:
        assert stat.S_IMODE(os.stat(staged).st_mode) == 0o700
        (staged / "file").touch()
    assert os.listdir(store.root / "staging") == []


@pytest.mark.needs_userns
@pytest.mark.outer
def test_a_full_disk_is_told_and_things_can_be_deleted_on_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fd = mount.new_filesystem("tmpfs", (("size", f"{8 * _MIB}"), ("mode", "0700")))
    mount.move_mount(fd, str(root))
    store = Store(root, idmap.choose())
    kept = store.blobs.put(io.BytesIO(b"x" * _MIB))
    store.database.images.put("image", {"layers": [], "blobs": [kept.digest]})
    with pytest.raises(NoSpace):
        store.blobs.put(io.BytesIO(b"y" * 16 * _MIB))
    store.close()
    store = Store(root, idmap.choose())
    with pytest.raises(OSError, match="No space"):
        (root / "volumes/filler").write_bytes(b"z" * 16 * _MIB)
    with pytest.raises(NoSpace):
        store.database.containers.put("big", {"text": "x" * 4 * _MIB})
    assert store.blobs.open(kept.digest).read(1) == b"x"
    assert list(store.database.images.all()) == ["image"]
    with store.database.releasing():
        store.database.images.delete("image")
    assert store.collect().blobs == (kept.digest,)
    store.discard(root / "volumes/filler")
    store.close()
    again = Store(root, idmap.choose())
    assert again.blobs.put(io.BytesIO(b"y" * 2 * _MIB)).digest == digest_of(b"y" * 2 * _MIB)
    again.close()
    mount.umount(str(root))
