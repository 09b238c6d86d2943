"""What a COPY brings, as a digest: names, kinds, modes, owners, data, link targets, attributes.

Times are left out: a fresh checkout of the same files is the same content.
"""

from __future__ import annotations

import hashlib
import json
import stat
from typing import Final

from sandboxd.images.build.file_digests import FileDigests, user_attributes
from sandboxd.images.build.selection import Picked
from sandboxd.images.build.union import Node, Parts, walk

_AT_ONCE: Final = 512
"""Records that wait in memory: encoding many at once costs a fraction."""
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
}


class Contents:
    """Add what is picked, then ask for the digest. Raises OSError for what cannot be read."""

    def __init__(self, digests: FileDigests) -> None:
        self._digests = digests
        self._total = hashlib.sha256()
        self._records: list[list[object]] = []

    def add(self, picked: Picked) -> None:
        """A source with all that it stands for, under the place that it will have."""
        with picked.union.at(picked.parts) as node:
            assert node is not None
            self._add(picked.target, node, picked.keeps_owner)
            if node.is_directory:
                for path, entry in walk(node, picked.wanted):
                    self._add((*picked.target, *path), entry, picked.keeps_owner)

    def digest(self) -> str:
        self._flush()
        return self._total.hexdigest()

    def _add(self, target: Parts, node: Node, keeps_owner: bool) -> None:
        status = node.status
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        owner = [status.st_uid, status.st_gid] if keeps_owner else []
        record: list[object] = ["/".join(target), kind, stat.S_IMODE(status.st_mode), owner]
        if kind == "file":
            record += [status.st_size, *self._digests.of(node)]
        elif kind == "link":
            record += [node.link_target()]
        elif kind == "directory" and node.stack:
            record += [user_attributes(node.stack[0])]
        self._records.append(record)
        if len(self._records) >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        # json escapes every control and non-ASCII character, so a record cannot imitate two.
        self._total.update(json.dumps(self._records).encode() + b"\n")
        self._records.clear()
