"""The image `host`: what is planned, what is hidden, and that the kernel does what was planned."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images import Images, host_plan, masks
from sandboxd.images.secrets import hidden_paths, home_directories, is_below
from sandboxd.launcher.spec import HostRoot
from sandboxd.linux import idmap, mount
from sandboxd.store import Store


@contextmanager
def _images(tmp_path: Path, **options: Any) -> Iterator[tuple[Store, Images]]:
    store = Store(tmp_path / "root", idmap.choose())
    images = Images(store, idmap.choose(), **options)
    yield store, images
    images.close()
    store.close()


def _root(images: Images, *show: str) -> HostRoot:
    host = images.rootfs(images.get("host"), upper=None, readonly=False, show=show).host
    assert host is not None
    return host


def test_entries_are_sorted_by_the_way_in_which_they_appear() -> None:
    entries = [
        ("bin", "usr/bin"), ("usr", None), ("etc", None), ("home", None), ("proc", None),
        ("data", None), ("odd:name", None), ("tmp", None), ("dev", None), ("root", None),
        ("state", None),
    ]  # fmt: skip
    top = host_plan.plan(entries, frozenset({"data", "home"}), ["/state", "/etc/shadow"])
    assert top.overlays == ("etc", "usr")
    assert top.binds == ("data", "odd:name")
    assert top.links == (("bin", "usr/bin"),)
    assert top.empty == ("home", "root", "state", "tmp")
    assert top.shows("/usr/bin/python", ())
    assert not top.shows("/home/me", ())
    assert not top.shows("/etc/ssl/private/key", {"/etc/ssl/private"})
    assert top.shows("/etc/ssl/privateer", {"/etc/ssl/private"})


def test_mounts_below_top_level_directories_are_found() -> None:
    lines = [
        "22 27 0:21 / /proc rw - proc proc rw",
        "23 27 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "27 1 254:0 / / rw - ext4 /dev/vda rw",
        "28 27 254:1 / /data rw - ext4 /dev/vdb rw",
        "29 27 254:1 / /srv/with\\040space/x rw - ext4 /dev/vdb rw",
        "30 27 0:50 / /opt/state/run/tmp rw - tmpfs sandbox rw",
    ]
    assert host_plan.with_mounts("\n".join(lines), ["/opt/state"]) == {"srv"}
    assert host_plan.with_mounts("\n".join(lines), []) == {"srv", "opt"}


def test_paths_are_compared_by_component() -> None:
    assert is_below("/a/b", ["/a"])
    assert is_below("/a", ["/a"])
    assert not is_below("/ab", ["/a"])
    assert is_below("/a", ["/"])


def test_homes_are_hidden_and_system_directories_are_not() -> None:
    homes = set(home_directories())
    assert not homes & {"/", "/usr", "/bin", "/usr/sbin", "/nonexistent/x", "/dev"}
    assert not any(home.startswith(("/usr/", "/etc/")) for home in homes)


def test_what_exists_of_the_list_is_hidden(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    hidden = hidden_paths([str(tmp_path)], privileged=os.geteuid() == 0)
    assert str(tmp_path.resolve()) in hidden
    for path in ("/etc/shadow", "/etc/gshadow", "/var/tmp", "/var/log", "/etc/sudoers"):
        assert (path in hidden) == (os.path.lexists(path) and not os.path.islink(path))
    assert "/var/run" not in hidden or not os.path.islink("/var/run")
    assert "/etc/passwd" not in hidden


@pytest.mark.needs_root
def test_as_root_what_others_may_not_read_is_hidden() -> None:
    hidden = hidden_paths([], privileged=True)
    for path in Path("/etc").rglob("*"):
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode) and not mode & stat.S_IROTH:
            assert is_below(str(path), hidden), path


@pytest.mark.needs_userns
@pytest.mark.outer
def test_the_plan_of_this_machine(tmp_path: Path) -> None:
    with _images(tmp_path) as (store, images):
        host = _root(images)
        overlays = dict(host.overlays)
        assert "usr" in {*overlays, *host.binds}
        assert {"tmp", "run", "home"} & set(os.listdir("/")) <= set(host.empty)
        assert not {"proc", "sys", "dev"} & {*overlays, *host.binds, *host.empty}
        for name, lowers in overlays.items():
            assert lowers == f"/{name}" or lowers.endswith(f"/{name}:/{name}")
            assert lowers.startswith((f"/{name}", str(store.root / "masks")))
        for name, target in host.links:
            assert os.readlink(f"/{name}") == target
        assert _root(images) is host
        image = images.get("host")
    with _images(tmp_path) as (_, images):
        assert images.get("host").id == image.id


@pytest.mark.needs_userns
@pytest.mark.outer
def test_overlays_of_the_plan_hide_what_they_should(tmp_path: Path) -> None:
    """Mounted as the launcher does it, from inside the outer namespace."""
    with _images(tmp_path) as (_, images):
        overlays = dict(_root(images).overlays)
        for name in sorted(overlays.keys() & {"etc", "var", "usr"}):
            place = tmp_path / "mount" / name
            for part in ("at", "upper", "work"):
                (place / part).mkdir(parents=True)
            lowers = tuple(overlays[name].split(":"))
            fd = mount.overlay(lowers, str(place / "upper"), str(place / "work"))
            mount.move_mount(fd, str(place / "at"))
            os.close(fd)
        etc, var = tmp_path / "mount/etc/at", tmp_path / "mount/var/at"
        if etc.exists():
            assert (etc / "passwd").read_bytes() == Path("/etc/passwd").read_bytes()
            assert not list(etc.glob("shadow*"))
            assert not list(etc.glob("ssh/ssh_host_*_key"))
            sudoers = etc / "sudoers.d"
            assert not sudoers.exists() or os.listdir(sudoers) == []
            (etc / "made-inside").write_text("x")
            assert not os.path.lexists("/etc/made-inside")
        if var.exists():
            for name in ("tmp", "log"):
                if (var / name).is_dir() and not os.path.islink(var / name):
                    assert os.listdir(var / name) == []
                    mode = stat.S_IMODE(os.stat(f"/var/{name}").st_mode)
                    assert stat.S_IMODE(os.stat(var / name).st_mode) == mode
        for name in overlays.keys() & {"etc", "var", "usr"}:
            mount.umount(str(tmp_path / "mount" / name / "at"))


@pytest.mark.needs_userns
@pytest.mark.outer
def test_masks_of_files_directories_and_what_lies_in_them(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "private/deep").mkdir(parents=True)
    (secrets / "private/key").write_text("k")
    (secrets / "file").write_text("s")
    (secrets / "open").mkdir(mode=0o750)
    (secrets / "open").chmod(0o750)
    (secrets / "open/one").write_text("1")
    with _images(tmp_path) as (store, _):
        hidden = {str(secrets / name) for name in ("private", "private/key", "file", "open/one")}
        mask = masks.build(store, hidden)
        assert mask is not None
        assert masks.build(store, hidden) == mask
        below = mask / str(secrets).lstrip("/")
        assert sorted(os.listdir(below)) == ["file", "open", "private"]
        assert os.getxattr(below / "private", "user.overlay.opaque") == b"y"
        assert os.listdir(below / "private") == []
        for name in ("file", "open/one"):
            assert os.lstat(below / name).st_rdev == 0
            assert stat.S_ISCHR(os.lstat(below / name).st_mode)
        assert stat.S_IMODE(os.stat(below / "open").st_mode) == 0o750
        assert os.listdir(store.root / "staging") == []


@pytest.mark.needs_userns
@pytest.mark.outer
def test_a_directory_with_the_state_in_it_is_bound() -> None:
    """As /var is for a user at home in /var/lib: the mask would be a layer inside a layer."""
    with TemporaryDirectory(dir="/var/tmp") as base, _images(Path(base)) as (_, images):
        root = _root(images)
    assert "var" in root.binds
    assert "var" not in dict(root.overlays)
    assert "/var/tmp" in root.hide


@pytest.mark.needs_userns
@pytest.mark.outer
def test_shown_paths_need_a_bind_only_where_nothing_shows_them(tmp_path: Path) -> None:
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("temporary files lie in a directory that is shown anyway")
    shown, inner, link = tmp_path / "shown", tmp_path / "shown/inner", tmp_path / "link"
    inner.mkdir(parents=True)
    link.symlink_to(shown)
    with _images(tmp_path, show=[str(shown)]) as (store, images):
        assert _root(images).show == (str(shown),)
        assert _root(images, str(inner), "/usr/bin").show == (str(shown),)
        assert _root(images, str(link)).show == (str(link), str(shown))
        whole = _root(images, str(tmp_path))
        assert whole.show == (str(tmp_path),)
        assert str(store.root) in whole.hide
        for path, why in (
            ("relative", "absolute"), ("/", "absolute"), ("/proc/self", "absolute"),
            (str(tmp_path / "missing"), "does not exist"),
            (str(store.root / "volumes"), "service's own"),
        ):  # fmt: skip
            with pytest.raises(BadRequest, match=why):
                _root(images, path)


@pytest.mark.needs_userns
@pytest.mark.outer
def test_sockets_in_shown_directories_are_hidden(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, _images(tmp_path) as (_, images):
        listener.bind(str(shown / "s"))
        listener.listen()
        host = _root(images, str(shown))
        assert str(shown / "s") in host.hide


@pytest.mark.needs_userns
@pytest.mark.outer
def test_where_whiteouts_are_refused_secrets_are_covered_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)
    with _images(tmp_path) as (_, images):
        host = _root(images)
        assert all(lowers == f"/{name}" for name, lowers in host.overlays)
        assert "/etc/shadow" in host.hide or not os.path.exists("/etc/shadow")
        assert images.lowers(images.get("host")) == ()


@pytest.mark.needs_userns
@pytest.mark.outer
def test_a_new_mount_changes_the_plan(tmp_path: Path) -> None:
    with _images(tmp_path) as (_, images):
        before = _root(images)
        place = next(path for path in ("/usr/share/doc", "/usr/share") if os.path.isdir(path))
        assert "usr" in dict(before.overlays)
        mount.move_mount(mount.new_filesystem("tmpfs"), place)
        after = _root(images)
        assert "usr" in after.binds
        assert "usr" not in dict(after.overlays)
        mount.umount(place)
        assert "usr" in dict(_root(images).overlays)
