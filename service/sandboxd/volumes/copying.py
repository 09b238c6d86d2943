"""Copies of trees: out of an image or snapshot into a volume, and of an upper directory to disk.

Owners, modes, times, user attributes and hard links come along; sockets and devices do not. Data is
shared where the file system can (FICLONE), else copied by the kernel (copy_file_range(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.linux.xattrs import ORIGIN
from sandboxd.store.durable import begin_writing_back
from sandboxd.store.trees import OPAQUE, OVERFLOW_ID, is_whiteout
from sandboxd.volumes.union import Stack, descended, entries

FICLONE: Final = 0x40049409
"""ioctl_ficlone(2), on x86 and ARM."""
_CAPABILITIES: Final = "security.capability"
_DEPTH_MAX: Final = 400
_LARGE: Final = 256 << 10
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_SHARING: Final = (
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.EBADF,
)


def copy_tree(
    source: Stack,
    target: int,
    *,
    as_upper: bool = False,
    of_machine: bool = False,
    write_back: bool = False,
) -> None:
    """Fill the empty directory `target` with what `source`, a merged directory, shows.

    `as_upper` copies an overlay's upper directory as it is, whiteouts and opaque marks included.
    `of_machine` says that the id map may lack the owners of the source: they become 0. What this
    user may not read is left out. With `write_back` the disk begins with large files at once, for a
    copy that is to be made durable.
    """
    Copier(target, as_upper, of_machine, write_back).directory(source, target, "", 0)


class Copier:
    """Copies into the tree `root`, a descriptor; what shares an inode shares one in the copy."""

    def __init__(self, root: int, as_upper: bool, of_machine: bool, write_back: bool) -> None:
        self._root, self._as_upper, self._of_machine = root, as_upper, of_machine
        self._write_back = write_back
        self._copied: dict[tuple[int, int], str] = {}

    def directory(self, source: Stack, target: int, prefix: str, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise BadRequest(f"directory {prefix[:80]}…", f"nested deeper than {_DEPTH_MAX} levels")
        for name, parent, status in self._entries(source):
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, name, target, prefix, depth)
            else:
                self.leaf(parent, name, status, target, prefix)
        self.set_directory(source[0], target)

    def leaf(
        self, parent: int, name: str, status: os.stat_result, target: int, prefix: str
    ) -> None:
        """Copy what is no directory into `target`, whose path is `prefix` with a slash behind."""
        if not self._link(status, target, name) and self._leaf(parent, name, status, target):
            self._copied[(status.st_dev, status.st_ino)] = prefix + name

    def _entries(self, source: Stack) -> Iterable[tuple[str, int, os.stat_result]]:
        if not self._as_upper:
            return list(entries(source))
        (upper,) = source
        names = os.listdir(upper)
        return [(name, upper, os.stat(name, dir_fd=upper, follow_symlinks=False)) for name in names]

    def _subdirectory(self, source: Stack, name: str, target: int, prefix: str, depth: int) -> None:
        with descended(source, name) as below:
            if not below:
                return
            os.mkdir(name, 0o700, dir_fd=target)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
            try:
                self.directory(below, child, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(child)

    def _link(self, status: os.stat_result, target: int, name: str) -> bool:
        """Make a hard link where this inode was copied before."""
        first = self._copied.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if first is None:
            return False
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _leaf(self, parent: int, name: str, status: os.stat_result, target: int) -> bool:
        """Copy what is no directory; False for what cannot come along."""
        if stat.S_ISREG(status.st_mode):
            if not self._file(parent, name, status, target):
                return False
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=target)
            self._set_owner(status, name, target)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, 0o600, dir_fd=target)
            self._set_owner(status, name, target)
            _chmod(target, name, status.st_mode)
        elif self._as_upper and is_whiteout(status):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=target)
            return True
        else:
            return False
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        return True

    def _file(self, parent: int, name: str, status: os.stat_result, target: int) -> bool:
        try:
            source = os.open(name, _READ, dir_fd=parent)
        except PermissionError:
            return False
        try:
            copy = os.open(name, _NEW, 0o600, dir_fd=target)
            try:
                size = os.fstat(source).st_size
                _copy_data(source, copy, size)
                if self._write_back and size >= _LARGE:
                    begin_writing_back(copy)
                self._set(source, copy, status)
            finally:
                os.close(copy)
        finally:
            os.close(source)
        return True

    def set_directory(self, source: int, target: int) -> None:
        """Owner, mode, attributes and times of a directory, after all that is in it."""
        status = os.fstat(source)
        self._set(source, target, status)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _set(self, source: int, copy: int, status: os.stat_result) -> None:
        """Owner before mode: chown(2) clears set-id bits."""
        self._set_owner(status, copy)
        os.chmod(copy, stat.S_IMODE(status.st_mode))
        for key in os.listxattr(source):
            if self._keeps(key):
                os.setxattr(copy, key, os.getxattr(source, key))

    def _set_owner(
        self, status: os.stat_result, place: str | int, parent: int | None = None
    ) -> None:
        """Of a descriptor, or of a name in the directory `parent`, which may be a link."""
        ids = (status.st_uid, status.st_gid)
        uid, gid = (0 if self._of_machine and owner == OVERFLOW_ID else owner for owner in ids)
        follow = parent is None
        try:
            os.chown(place, uid, gid, dir_fd=parent, follow_symlinks=follow)
        except OSError:
            # An owner that an earlier, wider id map had.
            os.chown(place, 0, 0, dir_fd=parent, follow_symlinks=follow)

    def _keeps(self, key: str) -> bool:
        if key.startswith("user.overlay."):
            return self._as_upper and key in (OPAQUE, ORIGIN)
        return key.startswith("user.") or (self._as_upper and key == _CAPABILITIES)


def _copy_data(source: int, target: int, size: int) -> None:
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _NO_SHARING:
            raise
    while size > 0:
        try:
            copied = os.copy_file_range(source, target, size)
        except OSError as error:
            if error.errno not in _NO_SHARING:
                raise
            copied = os.sendfile(target, source, None, size)
        if not copied:
            return
        size -= copied


def _chmod(parent: int, name: str, mode: int) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    finally:
        os.close(fd)
