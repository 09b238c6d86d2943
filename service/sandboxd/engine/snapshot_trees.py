"""A snapshot's trees on their way: into a compressed archive in staging, and out of one.

Times are those of whole seconds; what the content's digest covers arrives as it was, and files
keep their holes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.engine.snapshot_artifact import LAYER, Holes, Part
from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.fast_zlib import gzip_compressor
from sandboxd.images.layer_tar import write_layer
from sandboxd.images.registry.manifests import Descriptor
from sandboxd.images.unpack import unpack
from sandboxd.linux.holes import holes, punch
from sandboxd.linux.idmap import IdMap
from sandboxd.store import trees
from sandboxd.store.digests import Reader

_WHITEOUT: Final = ".wh."
_HOLES_MAX: Final = 20_000
_HOLE_MIN: Final = 4096
_BLOCKS: Final = 512
"""The unit of st_blocks: stat(2)."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Packed(NamedTuple):
    """A tree as a blob in staging."""

    part: Part
    blob: Descriptor
    path: Path


def pack(tree: Path, digest: str, idmap: IdMap, path: Path) -> Packed:
    """Write the tree with this content digest as a gzip archive to the fresh file `path`. Blocks.

    Raises BadRequest for a tree that no archive of a layer can hold, NoSpace.
    """
    found = _Survey(tree)
    compressor, hashed, size = gzip_compressor(), hashlib.sha256(), 0
    try:
        with open(path, "xb") as file:

            def put(data: bytes) -> None:
                nonlocal size
                hashed.update(data)
                size += len(data)
                file.write(data)

            written = write_layer(tree, {}, lambda data: put(compressor.compress(data)), idmap)
            put(compressor.flush())
    except OSError as error:
        raise SandboxError.from_os("pack a snapshot", error) from error
    part = Part(digest, written.diff_id, found.size, found.files, found.holes, found.left_out)
    return Packed(part, Descriptor(LAYER, f"sha256:{hashed.hexdigest()}", size), path)


def unpacked(stream: Reader, part: Part, idmap: IdMap, staged: Path) -> tuple[Path, trees.Content]:
    """Unpack a tree into the private directory `staged`; where it is, and what it holds. Blocks.

    Raises BadRequest when it is not what `part` says, NoSpace.
    """
    layer = unpack(stream, staged, idmap)
    if layer.diff_id != part.diff_id:
        why = f"its archive is {layer.diff_id}, its config says {part.diff_id}"
        raise BadRequest("a snapshot's tree", why)
    root = trees.open_tree(layer.tree)
    try:
        _dig(root, part.holes)
        content = trees.measure(root)
    except OSError as error:
        raise SandboxError.from_os("unpack a snapshot", error) from error
    finally:
        os.close(root)
    is_exact = idmap.kind != "single" and not layer.metadata["owners"] and not part.left_out
    if is_exact and content.digest != part.digest:
        why = f"its content is {content.digest}, its config says {part.digest}"
        raise BadRequest("a snapshot's tree", why)
    return layer.tree, content


class _Survey:
    """What an archive does not say about a tree: holes, sockets; and what it could not say."""

    def __init__(self, tree: Path) -> None:
        self.size = self.files = 0
        self.holes: dict[str, Sequence[tuple[int, int]]] = {}
        self.left_out: tuple[str, ...] = ()
        self._count = 0
        root = trees.open_tree(tree)
        try:
            self._walk(root)
        finally:
            os.close(root)

    def _walk(self, root: int) -> None:
        seen: set[tuple[int, int]] = set()
        for entry in trees.walk(root):
            self.files += 1
            status = entry.status
            if entry.name.startswith(_WHITEOUT):
                why = f"it holds {entry.path[:200]!r}, which would be a whiteout in an archive"
                raise BadRequest("this snapshot cannot travel", why)
            if stat.S_ISSOCK(status.st_mode):
                self.left_out += (entry.path,)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                continue
            if status.st_nlink > 1:
                seen.add((status.st_dev, status.st_ino))
            self.size += status.st_size
            if status.st_blocks * _BLOCKS < status.st_size and self._count < _HOLES_MAX:
                self._find_holes(entry)

    def _find_holes(self, entry: trees.Entry) -> None:
        fd = os.open(entry.name, _READ, dir_fd=entry.parent)
        try:
            found = [(at, length) for at, length in holes(fd) if length >= _HOLE_MIN]
        finally:
            os.close(fd)
        if found:
            self.holes[entry.path] = found[: _HOLES_MAX - self._count]
            self._count += len(found)


def _dig(root: int, wanted: Holes) -> None:
    """Punch holes into the regular files that have them; where it cannot be, files stay full."""
    if not wanted:
        return
    for entry in trees.walk(root):
        if entry.path not in wanted or not stat.S_ISREG(entry.status.st_mode):
            continue
        fd = os.open(entry.name, _WRITE, dir_fd=entry.parent)
        try:
            for offset, length in wanted[entry.path]:
                if length and offset + length <= entry.status.st_size:
                    punch(fd, offset, length)
            os.utime(fd, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return
        finally:
            os.close(fd)
