"""Where a slot builds a root file system, and how anything is attached inside it.

Mount points lie in an image that nobody vouches for, so each is found by descriptor from the new
root, never by a path that the kernel resolves across a symbolic link to the outside
(CVE-2021-30465, CVE-2025-52881).
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from sandboxd.linux import mount
from sandboxd.linux.openat2 import make_directories, make_file

_PARTS: Final = "/.sandbox"
VOLATILE: Final = ",volatile"
"""Linux 5.10, for upper directories on disk: without it the end of the container's mount namespace,
and so its exit, waits until the whole file system is synced. It needs a fresh work directory each
time (overlayfs documentation, "Volatile mount")."""


class PathRefused(ValueError):
    """A mount's target that leads out of the container or cannot be a mount point."""


class Stage:
    """The slot's own tmpfs: what was mounted ahead, and the place where the root is built."""

    def __init__(self, base: str, root_path: str | None = None) -> None:
        self.base = base
        self._root_path = root_path
        self.parts: dict[str, int] = {}
        self.left_host = False
        self.late: list[Operation] = []
        self._root = -1

    @property
    def path(self) -> str:
        """The directory of all parts: below `base`, or at the root once the host was left."""
        return _PARTS if self.left_host else f"{self.base}{_PARTS}"

    @property
    def root_path(self) -> str:
        return self._root_path or f"{self.path}/root"

    def leave_host(self) -> None:
        """Ahead of time: this tmpfs becomes the root, and the host's tree is gone."""
        os.chdir(self.base)
        mount.pivot_root(".", f".{_PARTS}/old")
        mount.umount(f"{_PARTS}/old")
        self.left_host = True

    @property
    def root(self) -> int:
        """A descriptor of the new root; open it only after the root itself is mounted."""
        if self._root < 0:
            self._root = os.open(self.root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._root

    def writable(self, upper: str | None) -> tuple[str, str]:
        """The upper and work directories: below `upper`, or those made ahead on this tmpfs."""
        if upper is None:
            return f"{self.path}/u", f"{self.path}/w"
        for name in ("u", "w"):
            try:
                os.mkdir(f"{upper}/{name}", 0o755)
            except FileExistsError:
                pass
        return f"{upper}/u", f"{upper}/w"


class Operation(Protocol):
    """One step of the assembly."""

    def execute(self, stage: Stage) -> None: ...

    def describe(self) -> str: ...


def attach(tree: int, root: int, target: str, *, is_file: bool) -> None:
    """Attach a detached mount inside the tree at `root`, making the mount point when it is missing.

    Raises PathRefused for a target that is relative, is the root, or climbs.
    """
    parts = target.split("/")
    if not target.startswith("/") or ".." in parts or not target.strip("/"):
        raise PathRefused(f"mount target {target!r}: an absolute path below / without .. is needed")
    relative = target.strip("/")
    point = make_file(root, relative) if is_file else make_directories(root, relative, 0o755)
    try:
        mount.move_mount(tree, dirfd=point)
    finally:
        os.close(point)


def ensure_directory(parent: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass


def ensure_directory_path(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)
