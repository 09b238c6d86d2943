"""From the upper directory of an overlay to a published layer, without a tar archive in between.

What overlayfs and the launcher put there for themselves goes: bookkeeping attributes, the mark
`opaque` of directories that hide nothing (overlayfs sets it on every new directory), mount points.
Owners that the id map could not give to a file of a lower layer are given back to what was copied
up from it: `user.overlay.origin` tells a copied file from a new one.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.applied import Applied
from sandboxd.images.layer_tar import ARCHIVE_SIZE, write_layer
from sandboxd.images.ownership import Ownership
from sandboxd.linux.idmap import IdMap
from sandboxd.linux.xattrs import OPAQUE, ORIGIN, is_opaque
from sandboxd.store import Store, trees
from sandboxd.store.durable import syncfs
from sandboxd.store.trees import is_whiteout

MOUNT_POINTS: Final = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What the launcher makes in a root to mount its own on; empty ones are nobody's change."""

_BOOKKEEPING: Final = "user.overlay."
_NAMED: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX: Final = 400
_EARLY_MIN: Final = 8 << 20
"""Bytes from which on writing back early pays: a build's small layers would sync twice."""
_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)


class AdoptedLayer(NamedTuple):
    """A layer that was published: its diffID, and the bytes in its regular files."""

    diff_id: str
    size: int


def adopt_upper(
    store: Store,
    idmap: IdMap,
    upper: Path,
    lowers: Sequence[Path],
    *,
    clamp: int | None = None,
) -> AdoptedLayer | None:
    """Publish `upper` as a layer by renaming it; None, and `upper` stays, where nothing changed.

    `lowers` are the layers below it, topmost first, as they were mounted. The overlay must not be
    mounted any more. With `clamp`, in seconds since 1970, no file keeps a later time. The layer is
    pinned: call `store.release_pin(diff_id)` once something refers to it. Blocks. Raises
    SandboxError, NoSpace; `upper` may have lost overlayfs' marks then, nothing else.
    """
    applied = Applied()
    owners = [_owners_of(store, lower) for lower in lowers]
    try:
        with ExitStack() as held:
            root = _opened(held, upper)
            below = [
                (_opened(held, lower), known) for lower, known in zip(lowers, owners, strict=True)
            ]
            if not _Cleaner(applied, Ownership(idmap), clamp).clean(root, below):
                return None
    except OSError as error:
        raise SandboxError.from_os("adopt an upper directory", error) from error
    metadata = applied.to_metadata()
    with _writing_back(upper) if applied.size >= _EARLY_MIN else nullcontext():
        layer = write_layer(upper, metadata, _nowhere, idmap)
    metadata[ARCHIVE_SIZE] = layer.size
    store.hold_pin(layer.diff_id)
    try:
        store.layers.publish(layer.diff_id, upper, metadata)
    except BaseException:
        store.release_pin(layer.diff_id)
        raise
    return AdoptedLayer(layer.diff_id, applied.size)


@contextmanager
def _writing_back(tree: Path) -> Iterator[None]:
    """Let the disk work while the block computes: publishing syncs the file system anyway."""
    fd = trees.open_tree(tree)
    thread = threading.Thread(target=_synced, args=(fd,), name="write back")
    thread.start()
    try:
        yield
    finally:
        thread.join()
        os.close(fd)


def _synced(fd: int) -> None:
    try:
        syncfs(fd)
    except OSError:
        return  # publishing meets the same error and says so


def _nowhere(_: bytes | memoryview) -> None:
    """The archive is hashed, not kept."""


def _owners_of(store: Store, lower: Path) -> dict[str, list[int]]:
    """What a layer's metadata says about owners; a directory that is no layer has none."""
    if lower.parent != store.root / "layers/sha256":
        return {}
    row = store.database.layers.get(f"sha256:{lower.name}") or {}
    owners: dict[str, list[int]] = row.get("owners") or {}
    return owners


def _opened(held: ExitStack, tree: Path) -> int:
    fd = trees.open_tree(tree)
    held.callback(os.close, fd)
    return fd


_Below = list[tuple[int, dict[str, list[int]]]]
"""Descriptors of one directory in the lower layers, topmost first, with the layers' owners."""


class _Cleaner:
    """One walk over the upper directory with the same directories of the lower layers beside it."""

    def __init__(self, applied: Applied, ownership: Ownership, clamp: int | None) -> None:
        self._applied, self._ownership, self._clamp = applied, ownership, clamp
        self._seen: set[tuple[int, int]] = set()

    def clean(self, root: int, below: _Below) -> bool:
        """Whether anything is left that makes a layer."""
        self._drop_marks(root)
        self._directory(root, "", below, 0)
        lower_modes = [os.fstat(fd).st_mode for fd, _ in below[:1]]
        own = os.fstat(root)
        changed_root = bool(lower_modes) and own.st_mode not in (
            lower_modes[0],
            stat.S_IFDIR | 0o755,
        )
        return bool(os.listdir(root)) or changed_root

    def _directory(self, fd: int, path: str, below: _Below, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise BadRequest(f"directory {path[:80]}…", f"nested deeper than {_DEPTH_MAX} levels")
        before = os.fstat(fd)
        for name in sorted(os.listdir(fd)):
            self._entry(fd, name, f"{path}{name}", below, depth)
        moment = self._clamped(before.st_mtime_ns)
        if os.fstat(fd).st_mtime_ns != moment:
            os.utime(fd, ns=(moment, moment))

    def _entry(self, parent: int, name: str, path: str, below: _Below, depth: int) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._subdirectory(parent, name, path, status, below, depth)
        elif stat.S_IFMT(status.st_mode) not in _KINDS or _is_mount_point(
            parent, name, path, status, below
        ):
            os.unlink(name, dir_fd=parent)
        elif not is_whiteout(status):
            self._leaf(parent, name, path, status, below)

    def _subdirectory(
        self,
        parent: int,
        name: str,
        path: str,
        status: os.stat_result,
        below: _Below,
        depth: int,
    ) -> None:
        self._applied.entries += 1
        with ExitStack() as held:
            fd = os.open(name, trees.DIRECTORY, dir_fd=parent)
            held.callback(os.close, fd)
            merged = _descended(held, name, below)
            opaque = is_opaque(fd)
            self._drop_marks(fd)
            if opaque and merged:
                os.setxattr(fd, OPAQUE, b"y")
                merged = []
            self._directory(fd, f"{path}/", merged, depth + 1)
            if _is_mount_point(parent, name, path, status, below) or self._only_carried(
                fd, path, merged, opaque
            ):
                self._applied.entries -= 1
                os.rmdir(name, dir_fd=parent)
                return
            if merged:
                self._give_back(path, os.fstat(fd), merged[0][1])

    def _only_carried(self, fd: int, path: str, merged: _Below, opaque: bool) -> bool:
        """Whether a directory is here only since a mount point of the launcher lay in it."""
        carries = any(point.startswith(f"{path}/") for point in MOUNT_POINTS)
        if (opaque and merged) or not carries or os.listdir(fd):
            return False
        own = os.fstat(fd)
        if not merged:
            return (stat.S_IMODE(own.st_mode), own.st_uid, own.st_gid) == (0o755, 0, 0)
        lower = os.fstat(merged[0][0])
        return (own.st_mode, own.st_uid, own.st_gid) == (lower.st_mode, lower.st_uid, lower.st_gid)

    def _leaf(
        self, parent: int, name: str, path: str, status: os.stat_result, below: _Below
    ) -> None:
        self._applied.entries += 1
        copied_up = False
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            copied_up = self._drop_marks(f"/proc/self/fd/{parent}/{name}")
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in self._seen:
            self._applied.size += status.st_size
            if status.st_nlink > 1:
                self._seen.add((status.st_dev, status.st_ino))
        if self._clamped(status.st_mtime_ns) != status.st_mtime_ns:
            moment = self._clamped(status.st_mtime_ns)
            os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)
        if copied_up:
            for fd, owners in below:
                if owners and _is_there(fd, name):
                    self._give_back(path, status, owners)
                    break

    def _give_back(self, path: str, status: os.stat_result, owners: dict[str, list[int]]) -> None:
        """The owner that the lower layer's archive said, unless it was changed since."""
        true = owners.get(path)
        if true and self._ownership.placed(true[0], true[1]) == (status.st_uid, status.st_gid):
            self._applied.owners[path] = list(true)

    def _drop_marks(self, place: int | str) -> bool:
        """Remove overlayfs' attributes; whether the thing was copied up from below."""
        copied_up = False
        for attribute in os.listxattr(place, follow_symlinks=isinstance(place, int)):
            if attribute.startswith(_BOOKKEEPING):
                copied_up = copied_up or attribute == ORIGIN
                os.removexattr(place, attribute, follow_symlinks=isinstance(place, int))
        return copied_up

    def _clamped(self, moment: int) -> int:
        return moment if self._clamp is None else min(moment, self._clamp * 10**9)


def _descended(held: ExitStack, name: str, below: _Below) -> _Below:
    """The subdirectory `name` of the lower layers, as far down as it shows through."""
    found: _Below = []
    for parent, owners in below:
        try:
            fd = os.open(name, _NAMED, dir_fd=parent)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            break
        held.callback(os.close, fd)
        found.append((fd, owners))
        if is_opaque(f"/proc/self/fd/{fd}"):
            break
    return found


def _is_mount_point(
    parent: int, name: str, path: str, status: os.stat_result, below: _Below
) -> bool:
    """Whether this is an empty thing that the launcher made, since no layer has it."""
    if path not in MOUNT_POINTS or any(_is_there(fd, name) for fd, _ in below):
        return False
    if stat.S_ISDIR(status.st_mode):
        fd = os.open(name, trees.DIRECTORY, dir_fd=parent)
        try:
            return not os.listdir(fd)
        finally:
            os.close(fd)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _is_there(directory: int, name: str) -> bool:
    try:
        return not is_whiteout(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
