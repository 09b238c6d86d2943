"""The union of directories as overlayfs would show it, read by descriptor without a mount.

Topmost first: the first entry of a name counts, directories of one name merge, a whiteout
(character device 0:0) hides what lies below, and so does a directory marked `user.overlay.opaque`.
Symbolic links on the way to a path are followed inside the union, never out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sandboxd.store.trees import DIRECTORY, OPAQUE, is_whiteout

Stack = tuple[int, ...]
"""Descriptors of the directories that merge into one, topmost first; never empty."""

_LINKS_MAX: Final = 40


@contextmanager
def found(lowers: Sequence[Path], path: str) -> Iterator[Stack | None]:
    """The directory at `path` in the union of `lowers`; None when there is none."""
    with ExitStack() as held:
        root = tuple(_kept(held, os.open(lower, DIRECTORY)) for lower in lowers)
        yield _find(held, root, path) if root else None


def entries(stack: Stack) -> Iterator[tuple[str, int, os.stat_result]]:
    """Names in the merged directory, with the descriptor of the directory that each comes from."""
    seen: set[str] = set()
    for directory in stack:
        for name in sorted(os.listdir(directory), key=os.fsencode):
            if name in seen:
                continue
            seen.add(name)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not is_whiteout(status):
                yield name, directory, status


@contextmanager
def descended(stack: Stack, name: str) -> Iterator[Stack]:
    """The merged directory `name` of a merged directory; empty where it may not be read."""
    with ExitStack() as held:
        yield _descend(held, stack, name)


def _kept(held: ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd


def _descend(held: ExitStack, stack: Stack, name: str) -> Stack:
    merging: list[int] = []
    for directory in stack:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                break
            merging.append(_kept(held, os.open(name, DIRECTORY, dir_fd=directory)))
        except FileNotFoundError:
            continue
        except PermissionError:
            break
        if _is_opaque(merging[-1]):
            break
    return tuple(merging)


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:
        return False


def _find(held: ExitStack, root: Stack, path: str) -> Stack | None:
    todo, trail, links = path.split("/")[::-1], [root], 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            trail = trail[:-1] or [root]
            continue
        target = _link_target(trail[-1], part)
        if target is None:
            below = _descend(held, trail[-1], part)
            if not below:
                return None
            trail.append(below)
            continue
        links += 1
        if links > _LINKS_MAX:
            return None
        trail = [root] if target.startswith("/") else trail
        todo += target.split("/")[::-1]
    return trail[-1]


def _link_target(stack: Stack, name: str) -> str | None:
    for directory in stack:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        is_link = stat.S_ISLNK(status.st_mode)
        return os.readlink(name, dir_fd=directory) if is_link else None
    return None
