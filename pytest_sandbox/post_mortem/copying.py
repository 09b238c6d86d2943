"""An upper directory copied as it is, whiteouts and opaque marks included, within a budget.

Only uppers know what a test has written; a copy of one laid below a fresh upper directory is the
same state once more. What cannot live on a disk (sockets) is left out.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK: Final = 1 << 20
_ENTRY: Final = 4096
"""What an entry counts for besides its bytes: it takes an inode."""
_OVERLAYS_MARKS: Final = "user.overlay."
_ORIGIN: Final = "user.overlay.origin"


class TooLarge(Exception):
    """The state does not fit into the budget."""


@dataclass
class Copier:
    """`budget`: bytes that may still be written."""

    budget: int
    size: int = 0
    left_out: list[str] = field(default_factory=list)
    """Paths that this user may not read."""

    def copy(self, source: int, target: int, path: str = "") -> None:
        """Fill the empty directory `target` with what the directory `source` holds.

        Raises TooLarge, OSError for a full disk.
        """
        with os.scandir(source) as listing:
            entries = list(listing)
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            self._account(_ENTRY)
            try:
                self._entry(source, target, entry.name, status, f"{path}/{entry.name}")
            except PermissionError:
                self.left_out.append(f"{path}/{entry.name}")
        status = os.fstat(source)
        _copy_marks(source, target)
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        _give(target, status)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _entry(
        self, source: int, target: int, name: str, status: os.stat_result, path: str
    ) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(source, target, name, path)
        elif kind == stat.S_IFREG:
            self._file(source, target, name, status)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        elif kind == stat.S_IFCHR and status.st_rdev == 0:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)  # a whiteout: anybody may, Linux 5.8

    def _directory(self, source: int, target: int, name: str, path: str) -> None:
        inner = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            copy = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self.copy(inner, copy, path)
            finally:
                os.close(copy)
        finally:
            os.close(inner)

    def _file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        reading = os.open(name, _READ, dir_fd=source)
        try:
            self._account(status.st_blocks * 512)
            writing = os.open(name, _NEW, 0o600, dir_fd=target)
            try:
                _copy_data(reading, writing, status.st_size)
                _copy_marks(reading, writing)
                os.fchmod(writing, stat.S_IMODE(status.st_mode))
                _give(writing, status)
                os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _account(self, size: int) -> None:
        self.size += size
        if self.size > self.budget:
            raise TooLarge


def _copy_data(reading: int, writing: int, size: int) -> None:
    """The bytes, its holes left holes: lseek(2), SEEK_DATA."""
    os.ftruncate(writing, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(reading, at, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        end = os.lseek(reading, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(reading, min(_BLOCK, end - at), at)
            if not data:
                return  # it has shrunk meanwhile
            at += os.pwrite(writing, data, at)


def _copy_marks(source: int, target: int) -> None:
    """overlayfs' own attributes, all but the one that names an inode of the lower layer."""
    for name in os.listxattr(source):
        if name.startswith(_OVERLAYS_MARKS) and name != _ORIGIN:
            os.setxattr(target, name, os.getxattr(source, name))


def _give(target: int, status: os.stat_result) -> None:
    """Root's tests may have files of any owner."""
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
