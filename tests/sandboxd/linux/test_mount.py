"""Mounts, in a mount namespace of the test's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandboxd.linux import mount, namespaces

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


def _mounted(path: Path) -> list[str]:
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if line.split()[4] == str(path)]


def _directories(base: Path, *names: str) -> list[str]:
    places = [base / name for name in names]
    for place in places:
        place.mkdir(parents=True)
    return [str(place) for place in places]


def test_a_tmpfs_comes_and_goes(tmp_path: Path) -> None:
    mount.mount("t", str(tmp_path), "tmpfs", mount.MS_NODEV, "size=64k,mode=700")
    assert "tmpfs" in _mounted(tmp_path)[0]
    mount.umount(str(tmp_path))
    assert not _mounted(tmp_path)


def test_a_path_may_hold_any_byte(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 \xff,:\\x")
    odd.mkdir()
    mount.mount("t", str(odd), "tmpfs")
    (odd / "file").write_text("in")
    mount.umount(str(odd))
    assert not list(odd.iterdir())


def test_a_detached_copy_is_read_only_while_the_original_is_not(tmp_path: Path) -> None:
    source, target = _directories(tmp_path, "source", "target")
    tree = mount.open_tree(source)
    mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree, recursive=True)
    mount.move_mount(tree, target)
    os.close(tree)
    Path(source, "file").write_text("seen")
    assert Path(target, "file").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only"):
        Path(target, "file").write_text("no")


def test_a_mount_attaches_at_a_descriptor(tmp_path: Path) -> None:
    target = _directories(tmp_path, "target")[0]
    point = os.open(target, os.O_PATH | os.O_CLOEXEC)
    tree = mount.new_filesystem("tmpfs", (("size", "64k"), ("mode", "0700")))
    mount.move_mount(tree, dirfd=point)
    assert _mounted(Path(target))


def test_open_tree_without_clone_is_the_mount_itself(tmp_path: Path) -> None:
    mount.mount("t", str(tmp_path), "tmpfs")
    (tmp_path / "inside").mkdir()
    itself = mount.open_tree(str(tmp_path), clone=False)
    mount.move_mount(itself, "/mnt")
    assert os.listdir("/mnt") == ["inside"]
    assert not _mounted(tmp_path)


def test_the_kernels_own_words_are_in_the_message() -> None:
    with pytest.raises(OSError, match="fsconfig") as caught:
        mount.new_filesystem("tmpfs", (("nonsense", "1"),))
    assert caught.value.errno == errno.EINVAL
    assert "nonsense" in str(caught.value)


@pytest.mark.parametrize("count", [2, 40])
def test_an_overlay_stacks_its_layers(tmp_path: Path, count: int) -> None:
    mount.mount("t", str(tmp_path), "tmpfs")
    lowers = _directories(tmp_path, *(f"layer-with-a-long-name-{n:03}" for n in range(count)))
    for number, lower in enumerate(lowers):
        Path(lower, "top").write_text(str(number))
        Path(lower, f"only{number}").touch()
    upper, work, merged = _directories(tmp_path, "upper", "work", "merged")
    tree = mount.overlay(tuple(lowers), upper, work)
    mount.move_mount(tree, merged)
    assert Path(merged, "top").read_text() == "0"
    assert len(os.listdir(merged)) == count + 1
    Path(merged, "top").write_text("changed")
    assert Path(lowers[0], "top").read_text() == "0"
    assert Path(upper, "top").read_text() == "changed"


def test_an_overlay_without_upper_is_read_only(tmp_path: Path) -> None:
    mount.mount("t", str(tmp_path), "tmpfs")
    one, two, merged = _directories(tmp_path, "one", "two", "merged")
    mount.move_mount(mount.overlay((one, two), None, None), merged)
    with pytest.raises(OSError, match="Read-only"):
        Path(merged, "file").touch()


def test_layers_may_have_colons_and_backslashes(tmp_path: Path) -> None:
    mount.mount("t", str(tmp_path), "tmpfs")
    one, two, merged = _directories(tmp_path, "a:b", "c\\d", "merged")
    Path(one, "one").touch()
    Path(two, "two").touch()
    mount.move_mount(mount.overlay((one, two), None, None), merged)
    assert sorted(os.listdir(merged)) == ["one", "two"]


def test_the_new_root_hides_the_old(tmp_path: Path) -> None:
    mount.make_private()
    mount.mount("t", str(tmp_path), "tmpfs")
    (tmp_path / "here").touch()
    child, _ = namespaces.fork_into(namespaces.CLONE_NEWNS)
    if child == 0:
        os.chdir(tmp_path)
        mount.pivot_root(".", ".")
        mount.umount(".")
        os.chdir("/")
        os._exit(0 if os.listdir("/") == ["here"] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_mounted_here_is_not_seen_outside(tmp_path: Path) -> None:
    outside = Path(f"/proc/{os.getppid()}/mountinfo")
    mount.mount("sandbox-secret", str(tmp_path), "tmpfs")
    assert "sandbox-secret" in Path("/proc/self/mountinfo").read_text()
    assert "sandbox-secret" not in outside.read_text()
