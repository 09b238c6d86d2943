"""What files in build contexts hold, each file read once as long as it stays the same.

A file counts as the same while device, inode, size, mtime and ctime are: size and mtime alone can
be made equal (buildkit issue 4817). One that changed in the last moments may change again within
the same tick of the clock, so it is not remembered yet.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Final, NamedTuple

from sandboxd.images.build.union import Node
from sandboxd.linux.xattrs import is_overlays_own
from sandboxd.store import Store

_BLOCK: Final = 1 << 20
_SETTLED: Final = 2 * 10**9
"""Nanoseconds after which a change would show in the file's times."""
_REMEMBERED_MAX: Final = 50_000

Stamp = tuple[int, int, int]
"""Size, mtime and ctime; times in nanoseconds."""


class Held(NamedTuple):
    """The sha256 of a regular file's bytes and its user attributes, all hexadecimal."""

    sha256: str
    attributes: dict[str, str]


class KnownFiles:
    """What is known of files by device and inode: in memory, over the store's `file_digests`."""

    def __init__(self, store: Store) -> None:
        self._rows = store.database.file_digests
        self._database = store.database
        self._mutex = threading.Lock()
        self._memory: dict[str, tuple[Stamp, Held]] = {}

    def find(self, key: str, stamp: Stamp) -> Held | None:
        with self._mutex:
            found = self._memory.get(key)
        if found is None and (row := self._rows.get(key)) is not None:
            size, modified, changed = row["stamp"]
            found = (size, modified, changed), Held(row["sha256"], row["attributes"])
            self._remember({key: found})
        return found[1] if found is not None and found[0] == stamp else None

    def add(self, found: dict[str, tuple[Stamp, Held]]) -> None:
        self._remember(found)
        with self._database.transaction():
            for key, (stamp, held) in found.items():
                self._rows.put(key, {"stamp": stamp, **held._asdict()})

    def forget(self) -> None:
        with self._mutex:
            self._memory.clear()
        self._database.execute("DELETE FROM file_digests")

    def _remember(self, found: dict[str, tuple[Stamp, Held]]) -> None:
        with self._mutex:
            self._memory |= found
            while len(self._memory) > _REMEMBERED_MAX:
                del self._memory[next(iter(self._memory))]


class FileDigests:
    """For one build. `is_lasting`: its context's files will be there at the next one."""

    def __init__(self, known: KnownFiles, *, is_lasting: bool) -> None:
        self._known, self._is_lasting = known, is_lasting
        self._new: dict[str, tuple[Stamp, Held]] = {}

    def of(self, node: Node) -> Held:
        """What a regular file holds. Raises OSError."""
        status = node.status
        key = f"{status.st_dev}:{status.st_ino}"
        stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if self._is_lasting and (held := self._known.find(key, stamp)) is not None:
            return held
        held = _read(node)
        if self._is_lasting and time.time_ns() - max(stamp[1:]) > _SETTLED:
            self._new[key] = stamp, held
        return held

    def save(self) -> None:
        """Keep what was found."""
        if self._new:
            self._known.add(self._new)
            self._new = {}


def user_attributes(fd: int) -> dict[str, str]:
    """The extended attributes that a copy of a file or directory gets; values in hexadecimal."""
    names = [name for name in sorted(os.listxattr(fd)) if name.startswith("user.")]
    return {name: os.getxattr(fd, name).hex() for name in names if not is_overlays_own(name)}


def _read(node: Node) -> Held:
    total = hashlib.sha256()
    fd = node.open()
    try:
        while block := os.read(fd, _BLOCK):
            total.update(block)
        return Held(total.hexdigest(), user_attributes(fd))
    finally:
        os.close(fd)
