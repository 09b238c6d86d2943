"""What a container has changed, from its upper directory and the layers below: `docker diff`.

Read by descriptor and without following links; the container may write meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.errors import SandboxError
from sandboxd.images.upper import MOUNT_POINTS
from sandboxd.linux.xattrs import is_opaque
from sandboxd.store import trees
from sandboxd.store.trees import is_whiteout

MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2
_NAMED: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX: Final = 400


class Change(NamedTuple):
    """One path, absolute, and what happened to it, in the numbers of Docker's API."""

    path: str
    kind: int


def changes(upper: Path, lowers: Sequence[Path]) -> Sequence[Change]:
    """In the order of the paths; none where there is no upper directory. Raises SandboxError."""
    if not upper.is_dir():
        return []
    with ExitStack() as held:
        try:
            root = _held(held, trees.open_tree(upper))
            below = [_held(held, trees.open_tree(lower)) for lower in lowers]
            return list(_changes(root, below, "", 0))
        except OSError as error:
            raise SandboxError.from_os("compare a container with its image", error) from error


def _changes(upper: int, below: list[int], prefix: str, depth: int) -> Iterator[Change]:
    if depth > _DEPTH_MAX:
        return
    for name in sorted(os.listdir(upper), key=os.fsencode):
        path = f"{prefix}{name}"
        try:
            status = os.stat(name, dir_fd=upper, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _directory(upper, name, path, below, depth)
                continue
        except (FileNotFoundError, NotADirectoryError):
            continue  # gone meanwhile
        was_there = _is_there(below, name)
        if is_whiteout(status):
            yield Change(f"/{path}", DELETED)
        elif was_there:
            yield Change(f"/{path}", MODIFIED)
        elif path not in MOUNT_POINTS or status.st_size:
            yield Change(f"/{path}", ADDED)


def _directory(upper: int, name: str, path: str, below: list[int], depth: int) -> Iterator[Change]:
    with ExitStack() as held:
        fd = _held(held, os.open(name, trees.DIRECTORY, dir_fd=upper))
        merged = _descended(held, name, below)
        replaced = is_opaque(fd)
        inside = list(_changes(fd, [] if replaced else merged, f"{path}/", depth + 1))
        if replaced:
            inside = sorted([*inside, *_lost(merged, fd, path)])
        if not inside and _is_of_the_launcher(fd, path, merged):
            return
        kind = MODIFIED if merged or _is_there(below, name) else ADDED
        yield Change(f"/{path}", kind)
        yield from inside


def _lost(merged: list[int], upper: int, path: str) -> Iterator[Change]:
    """What a directory that was replaced by a new one no longer has."""
    kept = set(os.listdir(upper))
    names = {name for fd in merged for name in os.listdir(f"/proc/self/fd/{fd}")}
    for name in sorted(names - kept, key=os.fsencode):
        if _is_there(merged, name):
            yield Change(f"/{path}/{name}", DELETED)


def _is_of_the_launcher(fd: int, path: str, merged: list[int]) -> bool:
    """Whether a directory is here for a mount point only."""
    if path in MOUNT_POINTS:
        return not merged and not os.listdir(fd)
    inside = {point for point in MOUNT_POINTS if point.startswith(f"{path}/")}
    names = {f"{path}/{name}" for name in os.listdir(fd)}
    return bool(inside) and names <= inside


def _descended(held: ExitStack, name: str, below: list[int]) -> list[int]:
    found = []
    for parent in below:
        try:
            fd = _held(held, os.open(name, _NAMED, dir_fd=parent))
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            break
        found.append(fd)
        if is_opaque(f"/proc/self/fd/{fd}"):
            break
    return found


def _is_there(below: list[int], name: str) -> bool:
    """Whether the layers below, topmost first, show something of that name."""
    for fd in below:
        try:
            return not is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            continue
    return False


def _held(held: ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd
