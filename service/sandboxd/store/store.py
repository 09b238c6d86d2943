"""The state root: directories, metadata, and the one way in which things appear and vanish.

```
metadata.sqlite  blobs/sha256/HEX  layers/sha256/HEX/  recipes/HEX  snapshots/HEX/
volumes/NAME/    containers/ID/    staging/  what is half-made      trash/  what is being deleted
locks/           masks/
```
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.linux.idmap import IdMap
from sandboxd.paths import private_directory
from sandboxd.store.blobs import Blobs
from sandboxd.store.collection import Collector, Reclaimed
from sandboxd.store.database import Database
from sandboxd.store.layers import Layers
from sandboxd.store.locks import Locks
from sandboxd.store.pins import Pins
from sandboxd.store.roots import Roots
from sandboxd.store.snapshots import Snapshots
from sandboxd.store.trash import Trash, Worker

_DIRECTORIES: Final = (
    "blobs/sha256",
    "layers/sha256",
    "recipes",
    "snapshots",
    "volumes",
    "containers",
    "staging",
    "trash",
    "locks",
    "masks",
)
_AWKWARD: Final = ":,\\"
"""Characters that overlayfs takes for separators in its options."""


class Store:
    """Everything under one state root. Call it from inside the outer user namespace."""

    def __init__(self, root: Path, idmap: IdMap) -> None:
        """Make what is missing, remove what a crash left half-made.

        Raises Forbidden when `root` is not a private directory of ours, BadRequest for a path that
        overlayfs could not take, NoSpace.
        """
        if any(character in str(root) for character in _AWKWARD):
            why = "a state root must not contain colons, commas or backslashes"
            raise BadRequest(f"{root}", why, "set SANDBOX_ROOT to another directory")
        self.root, self.idmap = root, idmap
        try:
            private_directory(root)
            for name in _DIRECTORIES:
                (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxError.from_os(f"make the state root {root}", error) from error
        self.database = Database(root / "metadata.sqlite")
        self.roots = Roots(self.database)
        self._locks = Locks(root / "locks")
        self._pins = Pins()
        self._worker = Worker()
        self._trash = Trash(root / "trash", self._worker)
        self._trashes = [self._trash]
        self.blobs = Blobs(root / "blobs/sha256", self.staging)
        self.layers = Layers(root / "layers/sha256", self.database, self._locks, self._trash)
        self.snapshots = Snapshots(
            root / "snapshots", self.database, self._locks, self._trash, self._pins
        )
        self._collector = Collector(
            root,
            self.database,
            self.blobs,
            self.layers,
            self.snapshots,
            self.roots,
            self._locks,
            self._pins,
            self._trash,
        )
        self._empty_staging()
        self._collector.sweep()

    @contextmanager
    def staging(self, prefix: str) -> Iterator[Path]:
        """A private directory for work in progress; what is still in it at the end is removed."""
        with self._locks.hold("staging"):
            try:
                path = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.root / "staging"))
            except OSError as error:
                raise SandboxError.from_os(f"start {prefix}", error) from error
            fd = _locked(path)
        try:
            with self._worker.held_off():
                yield path
        finally:
            os.close(fd)
            self.discard(path)

    def discard(self, path: Path) -> None:
        """Take a file or tree of the state root away at once; its deletion follows in a thread."""
        self._trash.discard(path)

    def trash_at(self, directory: Path) -> Trash:
        """Another trash, for a file system other than the state root's."""
        directory.mkdir(mode=0o700, exist_ok=True)
        trash = Trash(directory, self._worker)
        self._trashes.append(trash)
        return trash

    def lock(self, *names: str) -> AbstractContextManager[None]:
        """Hold the locks of digests or other names against other threads and processes."""
        return self._locks.hold(*names)

    def pin(self, *digests: str) -> AbstractContextManager[None]:
        """Keep digests or snapshot keys from collection while the block runs."""
        return self._pins.held(*digests)

    def hold_pin(self, digest: str) -> None:
        """Pin until `release_pin`, for holders that live longer than a block."""
        self._pins.add(digest)

    def release_pin(self, digest: str) -> None:
        self._pins.remove(digest)

    def collect(self, in_use: Iterable[str] = (), *, unused_for: float | None = None) -> Reclaimed:
        """Remove layers and blobs that no image, no root, no pin and nothing `in_use` refers to.

        With `unused_for`, in seconds, snapshots that no volume started from for so long go too,
        unless a volume still uses them; without it snapshots stay, for they are a cache.
        """
        self.snapshots.save_usage()
        return self._collector.collect(in_use, unused_for)

    def close(self, patience: float = 5.0) -> None:
        """Finish deletions, for so many seconds at most, and close the database."""
        self.snapshots.save_usage()
        self._worker.close(patience)
        for trash in self._trashes:
            trash.close()
        self.database.close()

    def _empty_staging(self) -> None:
        """Drop what no living process works on: whoever does holds a lock on its directory."""
        with self._locks.hold("staging"):
            for path in (self.root / "staging").iterdir():
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    # Another process was done with it just now.
                    continue
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.discard(path)
                except BlockingIOError:
                    continue
                finally:
                    os.close(fd)


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd
