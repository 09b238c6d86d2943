"""Paths in the union of a stage's layers, read by descriptor, without a mount.

As overlayfs shows it: the topmost entry of a name counts, directories merge, a whiteout or an
opaque directory hides what lies below. A symbolic link leads on inside the union, never out of it,
so neither a layer nor a build context can name a file of the host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.linux.xattrs import is_opaque
from sandboxd.store.trees import DIRECTORY, is_whiteout

Parts = tuple[str, ...]
"""A path's components; the root has none."""

_LINKS_MAX: Final = 40
_DEPTH_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Node:
    """One entry. `parent` holds `name`; a directory's `stack` are its layers' descriptors, topmost
    first. The descriptors are valid as long as whoever gave the node says."""

    status: os.stat_result
    parent: int
    name: str
    stack: tuple[int, ...] = ()

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def link_target(self) -> str:
        return os.readlink(self.name, dir_fd=self.parent)

    def open(self) -> int:
        """A descriptor of a regular file, to read. Never blocks, never follows a link."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags, dir_fd=self.parent)


class Union:
    """The union of directories, topmost first. Use as a context manager."""

    def __init__(self, lowers: Sequence[Path]) -> None:
        self._lowers = lowers
        self._held = ExitStack()
        self._root: Node | None = None

    def __enter__(self) -> Union:
        with ExitStack() as held:
            stack = tuple(_kept(held, os.open(lower, DIRECTORY)) for lower in self._lowers)
            self._held = held.pop_all()
        if stack:
            self._root = Node(os.fstat(stack[0]), stack[0], ".", stack)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @contextmanager
    def at(self, parts: Parts) -> Iterator[Node | None]:
        """The entry at a resolved path; no link is followed. None where there is none."""
        with ExitStack() as held:
            yield self._walked(held, parts)

    def resolve(self, path: str, *, base: Parts = (), follow_last: bool = True) -> Parts:
        """The path with its symbolic links followed, as far as there is anything.

        Raises BadRequest for a loop of links.
        """
        todo, done, links = path.split("/")[::-1], [*base], 0
        if path.startswith("/"):
            done = []
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]
                continue
            is_last = not any(each not in ("", ".") for each in todo)
            target = None
            if follow_last or not is_last:
                target = self._link_at((*done, part))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise BadRequest(f"path {path!r}", "too many symbolic links")
            if target.startswith("/"):
                done = []
            todo += target.split("/")[::-1]
        return tuple(done)

    def _link_at(self, parts: Parts) -> str | None:
        with self.at(parts) as node:
            if node is None or not stat.S_ISLNK(node.status.st_mode):
                return None
            return node.link_target()

    def _walked(self, held: ExitStack, parts: Parts) -> Node | None:
        node = self._root
        for part in parts:
            if node is None or not node.is_directory:
                return None
            node = child(held, node, part)
        return node


def child(held: ExitStack, node: Node, name: str) -> Node | None:
    """The entry `name` of a directory; its descriptors are closed with `held`."""
    first: Node | None = None
    merging: list[int] = []
    for directory in node.stack:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if is_whiteout(status):
            break
        if first is None:
            first = Node(status, directory, name)
            if not first.is_directory:
                return first
        elif not stat.S_ISDIR(status.st_mode):
            break
        try:
            merging.append(_kept(held, os.open(name, DIRECTORY, dir_fd=directory)))
        except PermissionError:
            break
        if is_opaque(merging[-1]):
            break
    return None if first is None else Node(first.status, first.parent, name, tuple(merging))


def names(node: Node) -> list[str]:
    """What the layers of a directory hold, sorted by bytes; of some names `child` finds nothing,
    for they are whiteouts."""
    if len(node.stack) == 1:
        return sorted(os.listdir(node.stack[0]), key=os.fsencode)
    found = {name for directory in node.stack for name in os.listdir(directory)}
    return sorted(found, key=os.fsencode)


Wanted = Callable[[Parts, bool], bool | None]
"""Asked with a path and whether it is a directory: yes, no, or None for a directory that counts
only if something in it does. What is below a refused directory is not asked about."""


def walk(node: Node, wanted: Wanted) -> Iterator[tuple[Parts, Node]]:
    """All entries below a directory, parents first, by path relative to it.

    Descriptors are valid until the walk goes on. Raises BadRequest beyond 200 levels.
    """
    return _walk(node, (), wanted)


def _walk(node: Node, prefix: Parts, wanted: Wanted) -> Iterator[tuple[Parts, Node]]:
    if len(prefix) > _DEPTH_MAX:
        raise BadRequest("/".join(prefix)[:80], f"nested deeper than {_DEPTH_MAX} directories")
    is_alone = len(node.stack) == 1
    for name in names(node):
        path = (*prefix, name)
        if is_alone and (leaf := _leaf(node.stack[0], name)) is not None:
            if wanted(path, False) and not is_whiteout(leaf.status):
                yield path, leaf
            continue
        with ExitStack() as held:
            entry = child(held, node, name)
            verdict = entry is not None and wanted(path, entry.is_directory)
            if entry is None or verdict is False:
                continue
            below = _walk(entry, path, wanted) if entry.is_directory else iter(())
            if verdict:
                yield path, entry
            elif (first := next(below, None)) is not None:
                yield path, entry
                yield first
            yield from below


def _leaf(directory: int, name: str) -> Node | None:
    """The entry of a directory that no other layer has, if it is no directory itself."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(status.st_mode) else Node(status, directory, name)


def _kept(held: ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd
