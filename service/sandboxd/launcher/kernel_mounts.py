"""proc, sys and dev of a container, mounted ahead: what the profile masks, forbids to write, binds.

Everything here but `new_sys` and `host_sys` runs in a warm slot.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from sandboxd.launcher import profile
from sandboxd.launcher.spec import DEFAULT_SHM_SIZE
from sandboxd.linux import mount

_NOSUID: Final = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


def mount_proc(path: str) -> None:
    """A fresh proc(5) of this pid namespace, with what the profile covers and forbids to write."""
    mount.mount("proc", path, "proc", _NOSUID)
    for name in profile.READONLY_PATHS:
        if name.startswith("/proc/"):
            _remount_read_only(f"{path}{name.removeprefix('/proc')}")
    for name in profile.MASKED_PATHS:
        if name.startswith("/proc/"):
            _mask(f"{path}{name.removeprefix('/proc')}")


def new_sys() -> int:
    """A detached sysfs(5) of the network namespace that this process is in, read-only.

    It takes CAP_SYS_ADMIN over that namespace, which a slot that joins one does not have.
    """
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    return mount.new_filesystem("sysfs", attributes=attributes | mount.MOUNT_ATTR_RDONLY)


def host_sys() -> int:
    """A detached copy of this machine's sysfs(5), read-only: for a slot in its network."""
    tree = mount.open_tree("/sys")
    mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree, recursive=True)
    return tree


def mount_sys(path: str, tree: int | None = None) -> None:
    """sysfs(5) of this network namespace, or `tree`, and the unified cgroups; all read-only."""
    if tree is None:
        mount.mount("sysfs", path, "sysfs", _NOSUID | mount.MS_RDONLY)
    else:
        mount.move_mount(tree, path)
        os.close(tree)
    for name in profile.MASKED_PATHS:
        if name.startswith("/sys/"):
            _mask(f"{path}{name.removeprefix('/sys')}")
    try:
        mount.mount("cgroup", f"{path}/fs/cgroup", "cgroup2", _NOSUID | mount.MS_RDONLY)
    except OSError:
        # No unified hierarchy that may be mounted: nothing of the host's shows either.
        return


def mount_dev(path: str) -> None:
    """A /dev of its own: bound nodes, a new devpts instance, shm, mqueue, and the usual links."""
    flags = mount.MS_NOSUID | mount.MS_NOEXEC
    mount.mount("dev", path, "tmpfs", flags, "mode=755,size=64k")
    for node, numbers in profile.DEVICE_NODES.items():
        _bind_node(f"/dev/{node}", f"{path}/{node}", os.makedev(*numbers))
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{path}/{name}", 0o755)
    _mount_devpts(f"{path}/pts")
    mount.mount("shm", f"{path}/shm", "tmpfs", _NOSUID, f"mode=1777,size={DEFAULT_SHM_SIZE}")
    mount.mount("mqueue", f"{path}/mqueue", "mqueue", _NOSUID)
    for name, target in profile.DEVICE_LINKS.items():
        os.symlink(target, f"{path}/{name}")


def _mount_devpts(path: str) -> None:
    flags = mount.MS_NOSUID | mount.MS_NOEXEC
    options = "newinstance,ptmxmode=0666,mode=0620"
    try:
        mount.mount("devpts", path, "devpts", flags, f"{options},gid=5")
    except OSError:
        # A single-id map has no group 5.
        mount.mount("devpts", path, "devpts", flags, options)


def _bind_node(source: str, target: str, device: int) -> None:
    """A host's device node, after a look that it still is one (CVE-2025-31133)."""
    tree = mount.open_tree(source, recursive=False)
    try:
        found = os.fstat(tree)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != device:
            raise OSError(f"{source}: not the character device of that name")
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        # The inode is the host's: read-only keeps its mode and owner, and devices stay writable.
        mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree)
        mount.move_mount(tree, target)
    finally:
        os.close(tree)


def _remount_read_only(path: str) -> None:
    if os.path.exists(path):
        _bind_read_only(path, path)


def _bind_read_only(source: str, target: str) -> None:
    tree = mount.open_tree(source, recursive=False)
    try:
        mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree)
        mount.move_mount(tree, target)
    finally:
        os.close(tree)


def _mask(path: str) -> None:
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return
    if is_directory:
        mount.mount("masked", path, "tmpfs", _NOSUID | mount.MS_RDONLY, "size=0,mode=555")
    else:
        _bind_read_only("/dev/null", path)
