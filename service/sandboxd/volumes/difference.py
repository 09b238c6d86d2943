"""What a merged directory has that the directories below it have not, as an upper directory.

For a container whose upper directory nobody can reach any more. Types, modes, owners, sizes, times
of change and targets of links are compared, as docker does with storage that cannot tell.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.linux.xattrs import ORIGIN
from sandboxd.store.trees import DIRECTORY
from sandboxd.volumes.copying import Copier
from sandboxd.volumes.union import Stack, descended, entries

_DEPTH_MAX: Final = 400

_Found = tuple[int, os.stat_result]
"""The descriptor of the directory that an entry is in, and its status."""


def copy_difference(root: int, below: Stack, target: int, leave_out: Container[str]) -> None:
    """Fill the empty directory `target`; `root` is what shows over the union `below`.

    Paths in `leave_out`, without a slash in front, are passed over with all that is in them: what
    is mounted there belongs to nobody. Raises OSError, BadRequest for a tree nested too deep.
    """
    _Difference(target, leave_out).directory(root, below, target, "", 0)


class _Difference:
    def __init__(self, target: int, leave_out: Container[str]) -> None:
        self._copier = Copier(target, as_upper=True, of_machine=False, write_back=True)
        self._leave_out = leave_out

    def directory(self, merged: int, below: Stack, target: int, prefix: str, depth: int) -> bool:
        """Whether anything was put into `target`."""
        if depth > _DEPTH_MAX:
            raise BadRequest(f"directory {prefix[:80]}…", f"nested deeper than {_DEPTH_MAX} levels")
        known = {name: (parent, status) for name, parent, status in entries(below)} if below else {}
        names = set(os.listdir(merged))
        changed = False
        for name in sorted(names | known.keys(), key=os.fsencode):
            path = prefix + name
            if path in self._leave_out:
                continue
            if name not in names:
                os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=target)
                changed = True
            else:
                changed |= self._entry(merged, name, known.get(name), below, target, prefix, depth)
        return changed

    def _entry(
        self,
        merged: int,
        name: str,
        known: _Found | None,
        below: Stack,
        target: int,
        prefix: str,
        depth: int,
    ) -> bool:
        status = os.stat(name, dir_fd=merged, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._subdirectory(merged, name, known, below, target, prefix, depth)
        if known is not None and _same(merged, name, status, known):
            return False
        self._copier.leaf(merged, name, status, target, prefix)
        if stat.S_ISREG(status.st_mode) and known and stat.S_ISREG(known[1].st_mode):
            os.setxattr(f"/proc/self/fd/{target}/{name}", ORIGIN, b"", follow_symlinks=False)
        return True

    def _subdirectory(
        self,
        merged: int,
        name: str,
        known: _Found | None,
        below: Stack,
        target: int,
        prefix: str,
        depth: int,
    ) -> bool:
        was_directory = known is not None and stat.S_ISDIR(known[1].st_mode)
        os.mkdir(name, 0o700, dir_fd=target)
        source = os.open(name, DIRECTORY, dir_fd=merged)
        copy = os.open(name, DIRECTORY, dir_fd=target)
        try:
            if was_directory:
                with descended(below, name) as deeper:
                    changed = self.directory(source, deeper, copy, f"{prefix}{name}/", depth + 1)
            else:
                changed = self.directory(source, (), copy, f"{prefix}{name}/", depth + 1) or True
            if not changed and known is not None and _same_owner(os.fstat(source), known[1]):
                os.rmdir(name, dir_fd=target)
                return False
            self._copier.set_directory(source, copy)
            return True
        finally:
            os.close(source)
            os.close(copy)


def _same(merged: int, name: str, status: os.stat_result, known: _Found) -> bool:
    parent, lower = known
    if not _same_owner(status, lower) or status.st_mtime_ns != lower.st_mtime_ns:
        return False
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=merged) == os.readlink(name, dir_fd=parent)
    return (status.st_size, status.st_rdev) == (lower.st_size, lower.st_rdev)


def _same_owner(status: os.stat_result, lower: os.stat_result) -> bool:
    """Type, mode, owner and group."""
    own = (status.st_mode, status.st_uid, status.st_gid)
    return own == (lower.st_mode, lower.st_uid, lower.st_gid)
