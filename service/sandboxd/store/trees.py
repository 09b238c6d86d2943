"""Walking a directory tree by descriptor, and the digest of its content.

No step resolves a path of more than one component or follows a symbolic link, so a tree that
somebody hostile filled leads nowhere else. Nobody should write to the tree meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPAQUE: Final = "user.overlay.opaque"
"""The attribute, with the value `y`, of a directory that hides those below it in an overlay."""
OVERFLOW_ID: Final = 65534
"""nobody, and what owners outside the id map look like: user_namespaces(7)."""
_DEPTH_MAX: Final = 400
"""Levels of directories; each costs an open descriptor while it is walked."""
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree. `parent` is a descriptor that is valid until the walk goes on."""

    path: str
    name: str
    parent: int
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs takes an entry for a whiteout: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def open_tree(path: Path) -> int:
    """A descriptor of a tree's root."""
    return os.open(path, DIRECTORY)


def walk(root: int) -> Iterator[Entry]:
    """All entries below `root`, parents first, names in the order of their bytes.

    Raises BadRequest for a tree nested deeper than 400 levels.
    """
    return _walk(root, "", 0)


def _walk(directory: int, prefix: str, depth: int) -> Iterator[Entry]:
    if depth > _DEPTH_MAX:
        raise BadRequest(f"directory {prefix[:80]}…", f"nested deeper than {_DEPTH_MAX} levels")
    for name in sorted(os.listdir(directory), key=os.fsencode):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        entry = Entry(prefix + name, name, directory, status)
        yield entry
        if entry.is_directory:
            child = os.open(name, DIRECTORY, dir_fd=directory)
            try:
                yield from _walk(child, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(child)


@dataclass(frozen=True, slots=True)
class Content:
    """What a tree holds: a digest, bytes in regular files, and how many entries."""

    digest: str
    size: int
    files: int


def measure(root: int) -> Content:
    """The content of the tree at `root`; hard links count once.

    The digest covers names, types, modes, owners, data, link targets, device numbers, hard links
    and user attributes, the root's own mode and owner too. It leaves out times, which differ each
    time the same recipe runs, and the bookkeeping attributes of overlayfs other than `opaque`.
    """
    total = hashlib.sha256()
    seen: dict[tuple[int, int], str] = {}
    size = files = 0
    status = os.fstat(root)
    _add(total, ["", status.st_mode, status.st_uid, status.st_gid, _attributes(root)])
    for entry in walk(root):
        files += 1
        status = entry.status
        identity = (status.st_dev, status.st_ino)
        if not entry.is_directory and status.st_nlink > 1:
            if identity in seen:
                _add(total, [entry.path, "hard link", seen[identity]])
                continue
            seen[identity] = entry.path
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
        owner = [entry.path, status.st_mode, status.st_uid, status.st_gid]
        _add(total, owner + _described(entry))
    return Content(f"sha256:{total.hexdigest()}", size, files)


def _add(total: hashlib._Hash, record: list[object]) -> None:
    # json escapes every control and non-ASCII character, so a record cannot imitate two.
    total.update(json.dumps(record).encode() + b"\n")


def _described(entry: Entry) -> list[object]:
    mode = entry.status.st_mode
    if stat.S_ISLNK(mode):
        return [os.readlink(entry.name, dir_fd=entry.parent)]
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return [entry.status.st_rdev]
    if stat.S_ISREG(mode):
        return _opened(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISDIR(mode):
        return _opened(entry, DIRECTORY)
    return []


def _opened(entry: Entry, flags: int) -> list[object]:
    fd = os.open(entry.name, flags, dir_fd=entry.parent)
    try:
        data = "" if entry.is_directory else _data_digest(fd)
        return [data, _attributes(fd)]
    finally:
        os.close(fd)


def _data_digest(fd: int) -> str:
    data = hashlib.sha256()
    while block := os.read(fd, _BLOCK):
        data.update(block)
    return data.hexdigest()


def _attributes(fd: int) -> dict[str, str]:
    names = [name for name in sorted(os.listxattr(fd)) if name.startswith("user.")]
    kept = [name for name in names if not name.startswith("user.overlay.") or name == OPAQUE]
    return {name: os.getxattr(fd, name).hex() for name in kept}
