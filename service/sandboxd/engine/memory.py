"""The service's own tmpfs, for what the containers of a lease write to their roots.

Such a container does not outlive the service, and on a disk its upper directory is what a start
costs most: a dozen small files and directories, each with an inode of its own. It is mounted before
the fork server starts, so that warm slots see it, and nobody else does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sandboxd.store import Store

_ROOM: Final = 256 << 20
"""Bytes that must be free for one more container."""


class Memory:
    """`containers` is the directory of the containers' own directories."""

    def __init__(self, path: Path, store: Store) -> None:
        self.containers = path / "containers"
        self.containers.mkdir(mode=0o700, exist_ok=True)
        self._store = store
        self._trash = store.trash_at(path / "trash")

    def has_room(self) -> bool:
        room = os.statvfs(self.containers)
        return room.f_bavail * room.f_frsize >= _ROOM

    def discard(self, path: Path) -> None:
        """Delete a directory, here or on the state root's disk, in the background."""
        if path.is_relative_to(self.containers):
            self._trash.discard(path)
        else:
            self._store.discard(path)
