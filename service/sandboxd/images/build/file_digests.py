"""Digests of files in build contexts, each file hashed once as long as it stays the same.

A file counts as the same while device, inode, size, mtime and ctime are: size and mtime alone can
be made equal (buildkit issue 4817). One that changed in the last moments may change again within
the same tick of the clock, so it is not remembered yet.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Final

from sandboxd.images.build.union import Node
from sandboxd.store import Store
from sandboxd.store.database import Document

_BLOCK: Final = 1 << 20
_SETTLED: Final = 2 * 10**9
"""Nanoseconds after which a change would show in the file's times."""


class FileDigests:
    """`is_lasting`: the files will be there at the next build, so what is found is kept."""

    def __init__(self, store: Store, *, is_lasting: bool) -> None:
        self._store, self._is_lasting = store, is_lasting
        self._new: dict[str, Document] = {}

    def of(self, node: Node) -> str:
        """sha256 of a regular file's bytes, hexadecimal. Raises OSError."""
        status = node.status
        key = f"{status.st_dev}:{status.st_ino}"
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if self._is_lasting:
            known = self._new.get(key) or self._store.database.file_digests.get(key)
            if known is not None and known["stamp"] == stamp:
                return str(known["sha256"])
        digest = self._hashed(node)
        if self._is_lasting and time.time_ns() - max(stamp[1:]) > _SETTLED:
            self._new[key] = {"stamp": stamp, "sha256": digest}
        return digest

    def save(self) -> None:
        """Keep what was found."""
        if self._new:
            with self._store.database.transaction():
                for key, row in self._new.items():
                    self._store.database.file_digests.put(key, row)
            self._new.clear()

    def _hashed(self, node: Node) -> str:
        total = hashlib.sha256()
        fd = node.open()
        try:
            while block := os.read(fd, _BLOCK):
                total.update(block)
        finally:
            os.close(fd)
        return total.hexdigest()
