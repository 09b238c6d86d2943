"""The lower directories of an image, and the repair of directories that a layer only implied.

A layer may hold `tmp/file` without `tmp/`. Its `tmp` was then made with mode 0755 and would, in the
union, cover what a lower layer says `tmp` is (image-spec issues 970 and 1221). So a layer with such
directories gets a small one on top, in which they are what they are further below.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sandboxd.images.sources import Workbench
from sandboxd.store import trees

_NAMED: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ORDINARY: Final = (0o755, 0, 0)

Attributes = tuple[int, int, int]
"""Mode, owner and group of a directory."""


def stack(bench: Workbench, layers: Sequence[str]) -> tuple[str, ...]:
    """The published layers to mount, topmost first, for an image's `layers` from the lowest up.

    A layer that hides everything below it ends the stack. Of a directory that would come twice the
    upper one counts, and overlayfs refuses both (ELOOP): many images repeat an empty layer.
    """
    found: dict[str, None] = {}
    stacked = _Stacked(bench, layers)
    for index in reversed(range(len(layers))):
        if (repair := stacked.repaired(index)) is not None:
            found.setdefault(repair)
        found.setdefault(layers[index])
        if stacked.metadata[index]["opaque_root"]:
            break
    return tuple(found)


class _Stacked:
    """Layers by index, the lowest first."""

    def __init__(self, bench: Workbench, layers: Sequence[str]) -> None:
        self._bench = bench
        self.metadata = [bench.store.layers.metadata(layer) for layer in layers]
        self._trees = [bench.store.layers.path(layer) for layer in layers]
        self._implied = [frozenset(each["implied"]) for each in self.metadata]
        self._remade = [frozenset(each.get("remade", ())) for each in self.metadata]

    def repaired(self, index: int) -> str | None:
        """A layer, made and published, that goes above this one; None where none is needed."""
        wanted = {path: self._attributes(index, path) for path in self._implied[index]}
        changed = [path for path, found in wanted.items() if found != _ORDINARY]
        if not changed:
            return None
        staged = self._bench.fresh_directory("repair")
        tree = staged / "tree"
        tree.mkdir()
        self._set(tree, self._attributes(index, ""))
        for path in sorted(changed):
            self._make(tree, index, path)
        return self._bench.publish_tree(tree, _digest(tree))

    def _make(self, tree: Path, index: int, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            place = tree / part
            if not place.is_dir():
                place.mkdir()
                self._set(place, self._attributes(index, part))

    def _set(self, place: Path, attributes: Attributes) -> None:
        mode, uid, gid = attributes
        os.chown(place, uid, gid)
        os.chmod(place, mode)

    def _attributes(self, index: int, path: str) -> Attributes:
        """What `path` is by the highest layer, from this one down, that says so itself."""
        for at in range(index, -1, -1):
            status, is_last = _looked_up(self._trees[at], path)
            if status is not None and path not in self._implied[at]:
                return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
            if is_last or self.metadata[at]["opaque_root"] or path in self._remade[at]:
                break
        return _ORDINARY


def _looked_up(tree: Path, path: str) -> tuple[os.stat_result | None, bool]:
    """The directory at `path` in one layer, and whether no lower layer has a say about it.

    An opaque mark hides what lies in a directory of lower layers, not what that directory is.
    """
    fd, hidden = os.open(tree, _NAMED), False
    try:
        for part in [part for part in path.split("/") if part]:
            hidden = hidden or trees.OPAQUE in os.listxattr(f"/proc/self/fd/{fd}")
            try:
                child = os.open(part, _NAMED, dir_fd=fd)
            except FileNotFoundError:
                return None, hidden
            except NotADirectoryError:
                return None, True
            os.close(fd)
            fd = child
        return os.fstat(fd), hidden
    finally:
        os.close(fd)


def _digest(tree: Path) -> str:
    fd = trees.open_tree(tree)
    try:
        return trees.measure(fd).digest
    finally:
        os.close(fd)
