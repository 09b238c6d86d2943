"""Directory trees that, as the topmost lower directory, hide parts of the machine's root.

A mask repeats the directories on the way to what it hides, with their modes; a hidden file is a
whiteout there, a hidden directory an opaque one, and so appears empty.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sandboxd.errors import NoSpace, SandboxError
from sandboxd.store import Store
from sandboxd.store.trees import OPAQUE, OVERFLOW_ID


def sweep(store: Store) -> None:
    """Drop all masks: no container outlives a service, and a power cut may have damaged them."""
    for path in (store.root / "masks").iterdir():
        store.discard(path)


def build(store: Store, hidden: Iterable[str]) -> Path | None:
    """The mask for these absolute paths, made if it is not there; one that is in use never changes.

    None where this kernel or file system refuses whiteouts to us (Linux < 5.8, or no user
    attributes); raises NoSpace when the disk is full.
    """
    paths = sorted(hidden)
    name = hashlib.sha256(json.dumps(paths).encode()).hexdigest()
    target = store.root / "masks" / name
    if target.is_dir():
        return target
    with store.staging("mask") as staged:
        tree = staged / "tree"
        tree.mkdir(mode=0o755)
        try:
            for path in paths:
                _hide(tree, path)
            os.rename(tree, target)
        except OSError as error:
            problem = SandboxError.from_os("hide the host's secrets", error)
            if isinstance(problem, NoSpace):
                raise problem from error
            return None
    return target


def _hide(tree: Path, path: str) -> None:
    """Paths come sorted, so what contains a path was hidden before it."""
    place = tree
    for part in Path(path).parts[1:-1]:
        if _is_opaque(place):
            return
        place = place / part
        _repeat(place, "/" / place.relative_to(tree))
    if _is_opaque(place):
        return
    place = place / Path(path).name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        _repeat(place, Path(path))
        os.setxattr(place, OPAQUE, b"y")
    else:
        os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))


def _repeat(place: Path, original: Path) -> None:
    """The same directory again: overlayfs takes mode and owner from the topmost one."""
    if place.is_dir():
        return
    place.mkdir()
    status = os.lstat(original)
    # What the id map lacks shows as the overflow id: the container's root has it then.
    uid, gid = (0 if owner == OVERFLOW_ID else owner for owner in (status.st_uid, status.st_gid))
    os.chown(place, uid, gid)
    os.chmod(place, stat.S_IMODE(status.st_mode))


def _is_opaque(place: Path) -> bool:
    return OPAQUE in os.listxattr(place)
