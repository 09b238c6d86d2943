"""Detached clones of directories, to be attached in a container's mount namespace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.linux import mount
from sandboxd.linux.openat2 import open_beneath

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def clone(path: Path, subpath: str = "", attributes: int = 0) -> int:
    """A detached mount of the directory `path`, or of the one at `subpath` as if `path` were `/`.

    `attributes` are MOUNT_ATTR_ flags to set. It is cloned from a mount that is attached, since
    kernels before Linux 6.15 clone no detached one. Raises BadRequest for a subpath that is not
    there or is no directory.
    """
    place = os.open(path, _DIRECTORY)
    try:
        if subpath:
            place = _entered(place, subpath)
        fd = mount.open_tree("", dirfd=place, recursive=False)
    finally:
        os.close(place)
    if attributes:
        mount.mount_setattr("", attributes, dirfd=fd)
    return fd


def _entered(root: int, subpath: str) -> int:
    """The directory inside, and `root` closed; where there is none, `root` is still open."""
    try:
        inside = open_beneath(root, subpath, _DIRECTORY)
    except OSError as error:
        raise BadRequest(f"volume subpath {subpath!r}", str(error.strerror)) from error
    os.close(root)
    return inside
