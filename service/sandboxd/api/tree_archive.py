"""A tar archive of a file or tree inside a container's root, as it is read.

Everything is opened relative to descriptors and never through a symbolic link: what a container
renames or links meanwhile can change what is archived, not lead out of its root.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Container, Iterator

_BLOCK = 512
_CHUNK = 1 << 18
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class TreeArchive:
    """Iterate for the bytes of the archive; `top` is the name of its first entry.

    What lies in the paths `leave_empty`, relative to the directory, is left out.
    """

    def __init__(
        self, parent: int, name: str, top: str, *, leave_empty: Container[str] = ()
    ) -> None:
        self._parent, self._name, self._top = parent, name, top
        self._leave_empty = leave_empty
        self._linked: dict[tuple[int, int], str] = {}

    def __iter__(self) -> Iterator[bytes]:
        """`name` in the directory `parent`, and all below it. Raises OSError."""
        yield from self._entry(self._parent, self._name, self._top)
        yield bytes(2 * _BLOCK)

    def below(self) -> Iterator[bytes]:
        """All that is below the directory, without an entry for itself. Raises OSError."""
        yield from self._directory(self._parent, self._name, self._top)
        yield bytes(2 * _BLOCK)

    def _entry(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket means nothing outside
        info = _header(status, kind, path)
        if path in self._leave_empty:
            info.size = 0
            yield _encoded(info)
        elif kind == tarfile.DIRTYPE:
            yield _encoded(info)
            yield from self._directory(parent, name, path)
        elif kind == tarfile.REGTYPE:
            yield from self._file(parent, name, info, status)
        else:
            if kind == tarfile.SYMTYPE:
                info.linkname = os.readlink(name, dir_fd=parent)
            yield _encoded(info)

    def _directory(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        fd = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
        try:
            for child in sorted(os.listdir(fd)):
                try:
                    yield from self._entry(fd, child, f"{path}/{child}" if path else child)
                except FileNotFoundError:
                    continue  # removed meanwhile
        finally:
            os.close(fd)

    def _file(
        self, parent: int, name: str, info: tarfile.TarInfo, status: os.stat_result
    ) -> Iterator[bytes]:
        identity = status.st_dev, status.st_ino
        if status.st_nlink > 1 and identity in self._linked:
            info.type, info.linkname = tarfile.LNKTYPE, self._linked[identity]
            yield _encoded(info)
            return
        self._linked[identity] = info.name
        fd = os.open(name, _OPEN, dir_fd=parent)
        try:
            info.size = os.fstat(fd).st_size
            yield _encoded(info)
            yield from _content(fd, info.size)
        finally:
            os.close(fd)


def _header(status: os.stat_result, kind: bytes, path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = kind
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = int(status.st_mtime)
    info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def _encoded(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding: a file that shrinks meanwhile is filled with zeros."""
    left = size
    while left and (data := os.read(fd, min(_CHUNK, left))):
        left -= len(data)
        yield data
    while left:
        zeros = min(_CHUNK, left)
        left -= zeros
        yield bytes(zeros)
    yield bytes(-size % _BLOCK)
