"""Writes what a COPY brings straight into the directory of a new layer.

The layer holds nothing else: a directory that the layers below have gets the attributes it has
there. Everything is reached by descriptor from the new directory, which nobody else can enter, and
links below the target lead on inside the union of layers only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final, TypeVar

from sandboxd.errors import BadRequest
from sandboxd.images.build.file_digests import user_attributes
from sandboxd.images.build.selection import Picked
from sandboxd.images.build.union import Node, Parts, Union, walk
from sandboxd.images.ownership import Ownership
from sandboxd.store.trees import DIRECTORY

FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_MAX: Final = 128
_WHOLE: Final = 1 << 30
_SMALL: Final = 1 << 16
_MODE: Final = 0o755

Owner = tuple[int, int]
T = TypeVar("T")


class LayerWriter:
    """`tree` is a descriptor of the new layer, `below` what it comes to lie on.

    `owner` and `mode` override those of the sources; None keeps them, but without `keeps_owner`
    everything belongs to 0:0. Raises BadRequest where a file and a directory meet, OSError.
    """

    def __init__(
        self,
        tree: int,
        below: Union,
        ownership: Ownership,
        owner: Owner | None = None,
        mode: int | None = None,
    ) -> None:
        self._tree, self._below, self._ownership = tree, below, ownership
        self._owner, self._mode = owner, mode
        self._open: dict[Parts, int] = {}
        self._fresh: set[Parts] = set()
        """Directories that no lower layer has: nothing below them needs a look."""
        self._led: dict[Parts, Parts] = {}
        """Where directories are that a lower layer's symbolic link stands for."""
        self._times: dict[Parts, int] = {}
        self._reflinks = True

    def close(self) -> None:
        """Set the directories' times and close what is open."""
        for parts in sorted(self._times, key=len, reverse=True):
            fd = self.directory(parts)
            os.utime(fd, ns=(self._times[parts], self._times[parts]))
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def copy(self, picked: Picked, target: Parts) -> None:
        """Copy a source to `target`, resolved in the layers below: see `selection`."""
        with picked.union.at(picked.parts) as node:
            assert node is not None
            place = (*target, *picked.target)
            if not node.is_directory:
                self._leaf(node, place, picked.keeps_owner)
                return
            if self._make(place):
                self._set_directory(node, place, picked.keeps_owner)
            for path, entry in walk(node, picked.wanted):
                if entry.is_directory:
                    self._make((*place, *path))
                    self._set_directory(entry, (*place, *path), picked.keeps_owner)
                else:
                    self._leaf(entry, (*place, *path), picked.keeps_owner)

    def directory(self, parts: Parts) -> int:
        """A descriptor, which stays ours, of the directory, made in the layer where missing."""
        self._make(parts)
        return self._opened(self._real(parts))

    def _real(self, parts: Parts) -> Parts:
        """The path with lower layers' links followed."""
        for length in range(len(parts), 0, -1):
            if (led := self._led.get(parts[:length])) is not None:
                return (*led, *parts[length:])
        return parts

    def _opened(self, parts: Parts) -> int:
        if not parts:
            return self._tree
        if (fd := self._open.get(parts)) is not None:
            return fd
        if len(self._open) >= _OPEN_MAX:
            for old in self._open.values():
                os.close(old)
            self._open.clear()
        fd = os.open(parts[-1], DIRECTORY, dir_fd=self._opened(parts[:-1]))
        self._open[parts] = fd
        return fd

    def _make(self, parts: Parts) -> bool:
        """Make a directory with all above it; whether it is one that was nowhere before."""
        real = self._real(parts)
        if not real or real in self._open:
            return False
        self._make(real[:-1])
        real = self._real(real)
        parent = self._opened(real[:-1])
        try:
            status = os.stat(real[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return self._make_new(parent, real)
        if not stat.S_ISDIR(status.st_mode):
            raise BadRequest(f"cannot copy to non-directory: /{'/'.join(real)}")
        return False

    def _make_new(self, parent: int, real: Parts) -> bool:
        if real[:-1] in self._fresh:
            self._make_fresh(parent, real)
            return True
        with self._below.at(real) as node:
            if node is None:
                self._make_fresh(parent, real)
                return True
            if node.is_directory:
                os.mkdir(real[-1], 0o700, dir_fd=parent)
                fd = self._opened(real)
                status = node.status
                owner = self._ownership.placed(status.st_uid, status.st_gid)
                _set(fd, owner, stat.S_IMODE(status.st_mode))
                self._times[real] = status.st_mtime_ns
                _copy_attributes(fd, user_attributes(node.stack[0]))
                return False
            if not stat.S_ISLNK(node.status.st_mode):
                raise BadRequest(f"cannot copy to non-directory: /{'/'.join(real)}")
        led = self._below.resolve("/".join(real))
        if led == real:
            raise BadRequest(f"cannot copy to non-directory: /{'/'.join(real)}")
        self._led[real] = led
        return self._make(led)

    def _make_fresh(self, parent: int, real: Parts) -> None:
        os.mkdir(real[-1], 0o700, dir_fd=parent)
        self._fresh.add(real)
        _set(self._opened(real), self._owner or (0, 0), _MODE)

    def _set_directory(self, node: Node, parts: Parts, keeps_owner: bool) -> None:
        real = self._real(parts)
        fd = self._opened(real)
        _set(fd, self._owner_of(node, keeps_owner), self._mode_of(node))
        _copy_attributes(fd, user_attributes(node.stack[0]))
        self._times[real] = node.status.st_mtime_ns

    def _leaf(self, node: Node, parts: Parts, keeps_owner: bool) -> None:
        self._make(parts[:-1])
        real = self._real(parts)
        parent, name = self._opened(real[:-1]), real[-1]
        self._refuse_directory(real)
        owner = self._owner_of(node, keeps_owner)
        kind = stat.S_IFMT(node.status.st_mode)
        if kind == stat.S_IFREG:
            self._file(node, parent, name, owner)
        elif kind == stat.S_IFLNK:
            self._placed(parent, name, lambda: os.symlink(node.link_target(), name, dir_fd=parent))
            _set_leaf(node, parent, name, owner)
        elif kind == stat.S_IFIFO:
            mode = self._mode_of(node)
            self._placed(parent, name, lambda: os.mkfifo(name, mode, dir_fd=parent))
            _set_leaf(node, parent, name, owner)

    def _placed(self, parent: int, name: str, make: Callable[[], T]) -> T:
        """Make what is no directory, in the place of what the same COPY brought before."""
        try:
            return make()
        except FileExistsError:
            pass
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            raise BadRequest(f"cannot overwrite directory with non-directory: {name}") from None
        return make()

    def _refuse_directory(self, real: Parts) -> None:
        """A directory of the layers below is never replaced."""
        if real[:-1] in self._fresh:
            return
        with self._below.at(real) as node:
            if node is not None and node.is_directory:
                shown = f"/{'/'.join(real)}"
                raise BadRequest(f"cannot overwrite directory with non-directory: {shown}")

    def _file(self, node: Node, parent: int, name: str, owner: Owner) -> None:
        source = node.open()
        try:
            self._refuse_changed(node, os.fstat(source))
            target = self._placed(parent, name, lambda: os.open(name, _NEW, 0o600, dir_fd=parent))
            try:
                self._data(source, target, node.status.st_size)
                _set(target, owner, self._mode_of(node))
                _copy_attributes(target, user_attributes(source))
                os.utime(target, ns=(node.status.st_mtime_ns, node.status.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _refuse_changed(self, node: Node, now: os.stat_result) -> None:
        """The file must be the one that was looked at, not a FIFO that has its name by now."""
        if not stat.S_ISREG(now.st_mode) or (now.st_dev, now.st_ino) != (
            node.status.st_dev,
            node.status.st_ino,
        ):
            raise BadRequest(f"{node.name} in the build context", "it changed during the build")

    def _data(self, source: int, target: int, size: int) -> None:
        """A reflink where the file system has them; else the kernel copies, small files apart."""
        if size <= _SMALL:
            while data := os.read(source, _SMALL):
                _write_all(target, data)
            return
        if self._reflinks:
            try:
                fcntl.ioctl(target, FICLONE, source)
                return
            except OSError:
                self._reflinks = False
        try:
            while os.copy_file_range(source, target, _WHOLE):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            while data := os.read(source, 1 << 20):
                _write_all(target, data)

    def _owner_of(self, node: Node, keeps_owner: bool) -> Owner:
        if self._owner is not None:
            return self._owner
        if not keeps_owner:
            return 0, 0
        return self._ownership.placed(node.status.st_uid, node.status.st_gid)

    def _mode_of(self, node: Node) -> int:
        return stat.S_IMODE(node.status.st_mode) if self._mode is None else self._mode


def _set(fd: int, owner: Owner, mode: int) -> None:
    """Owner, then mode: chown(2) clears set-id bits."""
    if owner != (0, 0):
        os.fchown(fd, *owner)
    os.fchmod(fd, mode)


def _set_leaf(node: Node, parent: int, name: str, owner: Owner) -> None:
    if owner != (0, 0):
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    moment = node.status.st_mtime_ns
    os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)


def _copy_attributes(fd: int, attributes: dict[str, str]) -> None:
    for name, value in attributes.items():
        os.setxattr(fd, name, bytes.fromhex(value))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
