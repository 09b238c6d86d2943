"""Mounts: mount(2), umount2(2), pivot_root(2), and the descriptor-based calls since Linux 5.2.

A descriptor from `open_tree(clone=True)` or `fsmount` is a detached mount: it can be sent to
another process, which attaches it with `move_mount` in its own mount namespace.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import checked, libc, syscall

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19

MNT_DETACH: Final = 2

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100
OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_SET_FD: Final = 5
_FSCONFIG_CMD_CREATE: Final = 6

_mount = libc.mount
_mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError naming the target."""
    result = _mount(source.encode(), os.fsencode(target), fstype.encode(), flags, options.encode())
    checked(f"mount {fstype or source} on", result, target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily by default: the mount leaves the tree at once."""
    checked("umount2", libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): the root of this mount namespace becomes `new_root`."""
    number = syscalls.own_number("pivot_root")
    syscall("pivot_root", new_root, number, os.fsencode(new_root), os.fsencode(put_old))


def open_tree(
    path: str, *, dirfd: int = AT_FDCWD, clone: bool = True, recursive: bool = True
) -> int:
    """open_tree(2), Linux 5.2: a descriptor for the mount at `path`; a detached copy with `clone`.

    An empty path means `dirfd` itself. Close-on-exec is set.
    """
    flags = OPEN_TREE_CLOEXEC
    if clone:
        flags |= OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall("open_tree", path, syscalls.SYS_OPEN_TREE, dirfd, os.fsencode(path), flags)


def move_mount(source_fd: int, target: str = "", *, dirfd: int = AT_FDCWD) -> None:
    """move_mount(2), Linux 5.2: attach the mount `source_fd` at `target`, or at `dirfd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    number = syscalls.SYS_MOVE_MOUNT
    syscall(
        "move_mount to", target or dirfd, number, source_fd, b"", dirfd, os.fsencode(target), flags
    )


def mount_setattr(
    path: str,
    attr_set: int = 0,
    attr_clr: int = 0,
    *,
    dirfd: int = AT_FDCWD,
    recursive: bool = False,
    propagation: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12: set and clear MOUNT_ATTR_ flags, of a whole tree on request."""
    attr = _MountAttr(attr_set, attr_clr, propagation, 0)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    number = syscalls.SYS_MOUNT_SETATTR
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    syscall(
        "mount_setattr",
        path or dirfd,
        number,
        dirfd,
        os.fsencode(path),
        flags,
        ctypes.byref(attr),
        size,
    )


def make_private(path: str = "/") -> None:
    """No mount event crosses between this namespace's tree at `path` and any other."""
    mount("none", path, "", MS_REC | MS_PRIVATE)


def make_slave(path: str = "/") -> None:
    """Mounts made later outside arrive here; mounts made here stay here."""
    mount("none", path, "", MS_REC | MS_SLAVE)


def new_filesystem(
    fstype: str,
    strings: tuple[tuple[str, str], ...] = (),
    flags: tuple[str, ...] = (),
    attributes: int = 0,
) -> int:
    """fsopen(2), fsconfig(2), fsmount(2), Linux 5.2: a detached mount of a fresh file system.

    `strings` are key and value, `flags` bare keys. Raises OSError naming the step; the kernel's own
    explanation, where it left one in the context's log, is added to the message.
    """
    context = syscall("fsopen", fstype, syscalls.SYS_FSOPEN, fstype.encode(), 1)
    try:
        for key, value in strings:
            _fsconfig(context, _FSCONFIG_SET_STRING, key, os.fsencode(value))
        for key in flags:
            _fsconfig(context, _FSCONFIG_SET_FLAG, key, None)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)
        return syscall("fsmount", fstype, syscalls.SYS_FSMOUNT, context, 1, attributes)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_explanation(context)}") from None
    finally:
        os.close(context)


def _fsconfig(context: int, command: int, key: str | None, value: bytes | None) -> None:
    encoded = None if key is None else key.encode()
    shown = "" if key is None else f"{key}={os.fsdecode(value or b'')}"
    syscall("fsconfig", shown, syscalls.SYS_FSCONFIG, context, command, encoded, value, 0)


def _explanation(context: int) -> str:
    try:
        return " (" + os.read(context, 4096).decode(errors="replace").strip() + ")"
    except OSError:
        return ""


def overlay(
    lowers: tuple[str, ...],
    upper: str | None,
    work: str | None,
    *,
    volatile: bool = False,
    attributes: int = 0,
) -> int:
    """A detached overlay over `lowers` (topmost first), Linux 5.11 for `userxattr`.

    Without an upper directory it is read-only and needs two lower directories. Paths may hold any
    byte; the many-layers form `lowerdir+` (Linux 6.5) is used where one option would not fit.
    """
    strings = [("source", "overlay")]
    joined = ":".join(_escape(lower) for lower in lowers)
    if len(os.fsencode(joined)) < 256:
        strings.append(("lowerdir", joined))
    else:
        strings += [("lowerdir+", lower) for lower in lowers]
    if upper is not None and work is not None:
        strings += [("upperdir", upper), ("workdir", work)]
    flags = ("userxattr", "volatile") if volatile else ("userxattr",)
    return new_filesystem("overlay", tuple(strings), flags, attributes)


def _escape(lower: str) -> str:
    return lower.replace("\\", "\\\\").replace(":", "\\:")


def mount_private_tmpfs(path: str, size: str) -> None:
    """A tmpfs(5) of that size on `path`, in this mount namespace, for its owner alone."""
    fd = new_filesystem("tmpfs", (("size", size), ("mode", "0700")), (), MOUNT_ATTR_NODEV)
    try:
        move_mount(fd, path)
    finally:
        os.close(fd)
