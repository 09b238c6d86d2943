"""Which part of the machine's root the image `host` takes in which way. Pure planning.

A directory without mounts below it becomes the lower directory of an overlay of its own, since
overlayfs refuses lowerdir=/ to a user namespace where something is mounted below. A directory with
mounts below is bound recursively, read-only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from sandboxd.images.secrets import EMPTY, is_below

_MOUNTED_ELSEWHERE = frozenset(("dev", "proc", "sys"))
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class TopLevel:
    """The entries of `/`, sorted by the way in which a container gets them."""

    overlays: tuple[str, ...]
    binds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    empty: tuple[str, ...]

    def shows(self, path: str, hidden: Iterable[str]) -> bool:
        """Whether a container sees what is at `path`, an absolute path without links."""
        top = path.split("/")[1]
        return (top in self.overlays or top in self.binds) and not is_below(path, hidden)


def plan(
    entries: Iterable[tuple[str, str | None]],
    with_mounts: frozenset[str],
    hidden: Iterable[str] = (),
) -> TopLevel:
    """`entries` are the directories and links of `/` with the links' targets; `with_mounts` names
    those that have mounts below. Of the `hidden` paths, those directly in `/` appear empty. Names
    that overlayfs cannot take are bound."""
    emptied = EMPTY | {path[1:] for path in hidden if path.count("/") == 1}
    overlays, binds, links, empty = [], [], [], []
    for name, target in sorted(entries):
        if target is not None:
            links.append((name, target))
        elif name in emptied:
            empty.append(name)
        elif name in with_mounts or set(name) & set(":,\\"):
            binds.append(name)
        elif name not in _MOUNTED_ELSEWHERE:
            overlays.append(name)
    return TopLevel(tuple(overlays), tuple(binds), tuple(links), tuple(empty))


def root_entries() -> list[tuple[str, str | None]]:
    """Directories and links of `/`. What this user may not enter counts as nothing."""
    found: list[tuple[str, str | None]] = []
    for entry in os.scandir("/"):
        if entry.is_symlink():
            found.append((entry.name, os.readlink(entry.path)))
        elif stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode) and (
            entry.name in EMPTY or os.access(entry.path, os.R_OK | os.X_OK)
        ):
            found.append((entry.name, None))
    return found


def with_mounts(mountinfo: str, own: Iterable[str]) -> frozenset[str]:
    """Top-level names below which something is mounted (proc_pid_mountinfo(5)).

    The service's mounts in its `own` directories do not count: they come and go with volumes, and
    no container's namespace has them.
    """
    names = set()
    for line in mountinfo.splitlines():
        path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ", 5)[4])
        parts = path.split("/")
        if len(parts) > 2 and not is_below(path, own):
            names.add(parts[1])
    return frozenset(names - _MOUNTED_ELSEWHERE)
