"""From a stream of bytes to a layer's directory, its diffID and what had to be left out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxd.errors import SandboxError
from sandboxd.images.applier import ANY_UMASK, Applier
from sandboxd.images.compression import Decompressed
from sandboxd.images.layer_tar import ARCHIVE_SIZE
from sandboxd.images.ownership import Ownership
from sandboxd.images.recipe import Recorder
from sandboxd.images.tar import Limits, TarReader
from sandboxd.linux.idmap import IdMap
from sandboxd.store import trees
from sandboxd.store.digests import HashingReader, Reader


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A layer in staging. `diff_id` is the digest of the uncompressed archive, which `recipe`
    together with the tree gives back."""

    diff_id: str
    tree: Path
    metadata: dict[str, Any]

    @property
    def recipe(self) -> Path:
        return self.tree.with_name("recipe")


def unpack(
    stream: Reader,
    staged: Path,
    idmap: IdMap,
    limits: Limits | None = None,
    *,
    umask: int = ANY_UMASK,
) -> Unpacked:
    """Unpack an archive, compressed or not, into `staged`, a fresh private directory.

    `umask`: this process's, where it is known that no other thread changes it.
    Raises BadRequest, NoSpace; what is in `staged` then is for the caller to drop.
    """
    tree, attic = staged / "tree", staged / "attic"
    tree.mkdir(mode=0o700)
    attic.mkdir(mode=0o700)
    archive = HashingReader(Decompressed(stream))
    root_fd, attic_fd = trees.open_tree(tree), trees.open_tree(attic)
    recorder = Recorder(tree.with_name("recipe"))
    try:
        applier = Applier(root_fd, attic_fd, Ownership(idmap), recorder, umask=umask)
        reader = TarReader(archive, limits, recorder.kept, sparse_files=True)
        applied = applier.apply(reader)
        recorder.finish(attic_fd)
    except OSError as error:
        raise SandboxError.from_os("unpack the layer", error) from error
    finally:
        recorder.close()
        os.close(root_fd)
        os.close(attic_fd)
    metadata = {**applied.to_metadata(), ARCHIVE_SIZE: archive.size}
    return Unpacked(archive.digest, tree, metadata)
