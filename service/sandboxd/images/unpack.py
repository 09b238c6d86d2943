"""From a stream of bytes to a layer's directory, its diffID and what had to be left out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxd.images.applier import Applier
from sandboxd.images.compression import Decompressed
from sandboxd.images.ownership import Ownership
from sandboxd.images.tar import Limits, TarReader
from sandboxd.linux.idmap import IdMap
from sandboxd.store import trees
from sandboxd.store.digests import HashingReader, Reader


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A layer in staging. `diff_id` is the digest of the uncompressed archive."""

    diff_id: str
    tree: Path
    metadata: dict[str, Any]


def unpack(stream: Reader, staged: Path, idmap: IdMap, limits: Limits | None = None) -> Unpacked:
    """Unpack an archive, compressed or not, into `staged`, a fresh private directory.

    Raises BadRequest, NoSpace; what is in `staged` then is for the caller to drop.
    """
    tree, attic = staged / "tree", staged / "attic"
    tree.mkdir(mode=0o700)
    attic.mkdir(mode=0o700)
    archive = HashingReader(Decompressed(stream))
    root_fd, attic_fd = trees.open_tree(tree), trees.open_tree(attic)
    try:
        applier = Applier(root_fd, attic_fd, Ownership(idmap))
        applied = applier.apply(TarReader(archive, limits))
    finally:
        os.close(root_fd)
        os.close(attic_fd)
    return Unpacked(archive.digest, tree, applied.to_metadata())
