"""Building a sandbox's root from a plan, in the process that becomes its pid 1.

Everything here runs in fresh namespaces, with all capabilities in the sandbox's own user namespace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from sandboxd.launcher import kernel_mounts
from sandboxd.linux import mount

_FLAGS: Final = mount.MS_NOSUID | mount.MS_NODEV
_NOATIME: Final = 1024
"""MS_NOATIME: reading a directory leaves no mark in it."""


def assemble_in_child(operations: Sequence[Sequence[Any]], stage: str) -> tuple[int, int]:
    """Carry out the plan below `stage`, and make it this process's root.

    Returns an O_PATH descriptor of the directory of uppers, and one to write the namespace's last
    pid to, which the root's own /proc lets nobody do. Raises OSError naming the step.
    """
    os.umask(0)
    mount.make_private()
    mount.mount("hermetic", stage, "tmpfs", _FLAGS | _NOATIME, "mode=755")
    for name in ("skeleton", "root", "u"):
        os.mkdir(f"{stage}/{name}", 0o755)
    for kind, *arguments in operations:
        if kind != "root":
            _foundation(f"{stage}/skeleton", kind, *arguments)
    for kind, *arguments in operations:
        _OPERATIONS[kind](stage, *arguments)
    last_pid = _open_last_pid(stage)
    uppers = os.open(f"{stage}/u", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(f"{stage}/root")
    mount.pivot_root(".", ".")
    mount.umount(".")
    os.chdir("/")
    return uppers, last_pid


def _open_last_pid(stage: str) -> int:
    """ns_last_pid of proc_sys_kernel(5)."""
    os.mkdir(f"{stage}/proc")
    mount.mount("proc", f"{stage}/proc", "proc", _FLAGS | mount.MS_NOEXEC)
    path = f"{stage}/proc/sys/kernel/ns_last_pid"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    mount.umount(f"{stage}/proc")
    return fd


def _foundation(skeleton: str, kind: str, *arguments: Any) -> None:
    """What `/` itself has at that place: a link, a file to bind over, or a directory."""
    if kind == "link":
        path, target = arguments
        _parents(skeleton + path)
        os.symlink(target, skeleton + path)
    elif kind in ("bind", "share", "tree") and not os.path.isdir(arguments[1]):
        _parents(skeleton + arguments[0])
        _touch(skeleton + arguments[0])
    elif kind in ("overlay", "fresh"):
        _directories(skeleton + arguments[1])
    elif kind == "text":
        _directories(os.path.dirname(skeleton + arguments[0]))
    elif kind == "directory":
        path, mode = arguments
        _directories(skeleton + path)
        os.chmod(skeleton + path, mode if os.geteuid() == 0 else mode & 0o555)
    else:
        _directories(skeleton + arguments[0])


def _root(stage: str, number: str, mode: int) -> None:
    _overlay(stage, number, "/", mode, os.getuid(), os.getgid(), f"{stage}/skeleton")


def _overlay(stage: str, number: str, path: str, mode: int, uid: int, gid: int, lower: str) -> None:
    base, target = f"{stage}/u/{number}", f"{stage}/root{path}"
    os.makedirs(f"{base}/upper")
    os.mkdir(f"{base}/work")
    if os.geteuid() == 0:
        os.chown(f"{base}/upper", uid, gid)
    os.chmod(f"{base}/upper", mode)
    _ensure_directory(target)
    options = f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work,userxattr"
    mount.mount("overlay", target, "overlay", 0, options)


def _fresh(stage: str, number: str, path: str, mode: int) -> None:
    upper, target = f"{stage}/u/{number}/upper", f"{stage}/root{path}"
    os.makedirs(upper)
    os.chmod(upper, mode)
    _ensure_directory(target)
    mount.mount(upper, target, "", mount.MS_BIND)


def _bind(stage: str, path: str, source: str) -> None:
    _attach(f"{stage}/root{path}", source, recursive=False)


def _share(stage: str, path: str, source: str) -> None:
    _attach(f"{stage}/root{path}", source, recursive=False, writable=True)


def _tree(stage: str, path: str, source: str) -> None:
    _attach(f"{stage}/root{path}", source, recursive=True)


def _attach(target: str, source: str, *, recursive: bool, writable: bool = False) -> None:
    """Bind `source`: an entry that overlayfs cannot take, a socket, what is to be kept."""
    if os.path.isdir(source):
        _ensure_directory(target)
    elif not os.path.lexists(target):
        _parents(target)
        _touch(target)
    tree = mount.open_tree(source, recursive=recursive)
    try:
        if not writable:
            mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree, recursive=recursive)
        mount.move_mount(tree, target)
    finally:
        os.close(tree)


def _nothing(stage: str, *arguments: Any) -> None:
    """Laid in the skeleton, where nothing covers it; below a fresh directory it is made now."""
    path = arguments[0]
    if os.path.lexists(f"{stage}/root{path}"):
        return
    if isinstance(arguments[1], str):
        _parents(f"{stage}/root{path}")
        os.symlink(arguments[1], f"{stage}/root{path}")
    else:
        _ensure_directory(f"{stage}/root{path}")


def _text(stage: str, path: str, content: str) -> None:
    """A file with that content in place of what the host has; over it, where it is a mount."""
    target = f"{stage}/root{path}"
    try:
        if os.path.lexists(target):
            os.unlink(target)
        _write(target, content)
    except OSError:
        _write(f"{stage}/text", content)
        _attach(target, f"{stage}/text", recursive=False)


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content.encode())
    finally:
        os.close(fd)


def _proc(stage: str, path: str) -> None:
    kernel_mounts.mount_proc(f"{stage}/root{path}")


def _sys(stage: str, path: str) -> None:
    """The kernel refuses a sysfs where part of the one outside is covered, or the network is not
    ours: the outer one then shows, read-only."""
    try:
        kernel_mounts.mount_sys(f"{stage}/root{path}")
    except PermissionError:
        _attach(f"{stage}/root{path}", "/sys", recursive=True)


def _dev(stage: str, path: str) -> None:
    target = f"{stage}/root{path}"
    kernel_mounts.mount_dev(target)
    if os.geteuid() != 0:
        os.chmod(target, 0o555)


_OPERATIONS: Final[dict[str, Any]] = {
    "root": _root,
    "overlay": _overlay,
    "fresh": _fresh,
    "bind": _bind,
    "share": _share,
    "tree": _tree,
    "link": _nothing,
    "text": _text,
    "directory": _nothing,
    "proc": _proc,
    "sys": _sys,
    "dev": _dev,
}


def _ensure_directory(path: str) -> None:
    if not os.path.isdir(path):
        _directories(path)


def _directories(path: str) -> None:
    """All of them 0755: os.makedirs would give the umask's modes to those on the way."""
    os.makedirs(path, 0o755, exist_ok=True)


def _parents(path: str) -> None:
    _directories(os.path.dirname(path))


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
