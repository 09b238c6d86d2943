"""The service's own tmpfs: upper directories in memory, and mount points that only it sees.

It is mounted in the service's mount namespace, so nothing of it exists outside, and all of it goes
when the service ends, however it ends.
"""

from __future__ import annotations

from pathlib import Path

from sandboxd.linux import mount
from sandboxd.store import Store


class PrivateMemory:
    """`uppers` and `mounts` are directories on it; `discard` deletes in the background."""

    def __init__(self, path: Path, store: Store) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        mount.mount_private_tmpfs(str(path), "50%")
        self.path = path
        self.uppers, self.mounts = path / "u", path / "m"
        self.uppers.mkdir()
        self.mounts.mkdir()
        self._trash = store.trash_at(path / "trash")

    def discard(self, path: Path) -> None:
        self._trash.discard(path)

    def close(self) -> None:
        """Unmount; memory is freed once the last container lets go of it."""
        mount.umount(str(self.path))
