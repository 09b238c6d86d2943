"""Volumes that start from a snapshot, copy-on-write: one overlay each, shared by its containers.

The service mounts the overlay at a place of its own and hands out clones of that mount, since two
overlays with one upper directory would corrupt each other.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from sandboxd.linux import mount
from sandboxd.store import Snapshot, Store, trees
from sandboxd.volumes.clones import clone
from sandboxd.volumes.copying import copy_tree
from sandboxd.volumes.hookspecs import Released
from sandboxd.volumes.places import Place
from sandboxd.volumes.private_memory import PrivateMemory
from sandboxd.volumes.volume import Volume


class Overlays:
    """`volumes/NAME/{upper,work}` on disk, or the same in the private memory."""

    def __init__(self, store: Store, memory: PrivateMemory) -> None:
        self._store, self._memory = store, memory
        self._disk = store.root / "volumes"
        self._mutex = threading.Lock()
        self._mounted: set[str] = set()

    def create(self, name: str, snapshot: Snapshot, place: Place) -> Path:
        """Make the upper directory, as the snapshot's root is; returns where the mount will be."""
        base = self._memory.uppers if place is Place.MEMORY else self._disk
        upper = base / name / "upper"
        upper.mkdir(mode=0o700, parents=True)
        below = os.stat(snapshot.layers[0])
        os.chown(upper, below.st_uid, below.st_gid)
        os.chmod(upper, stat.S_IMODE(below.st_mode))
        return self.mountpoint(name)

    def mountpoint(self, name: str) -> Path:
        """Where a volume is or would be mounted."""
        return self._memory.mounts / name

    def has(self, name: str) -> bool:
        """Whether there is an upper directory for a volume of that name."""
        return (self._home(name) / "upper").is_dir()

    def open(self, volume: Volume, subpath: str) -> int:
        """A detached clone of the volume's mount, which is made at first use."""
        with self._mutex:
            if volume.name not in self._mounted:
                self._mount(volume)
                self._mounted.add(volume.name)
        return clone(volume.mountpoint, subpath)

    def remove(self, volume: Volume) -> None:
        """Unmount and discard; containers that still have the mount keep it until they end."""
        self._unmount(volume)
        self.discard(volume.name)

    def discard(self, name: str) -> None:
        """Drop the directories of a volume that is not mounted."""
        self._discard(self._memory.uppers / name)
        self._discard(self._disk / name)

    def release(self, volume: Volume) -> Released:
        """The upper directory, unmounted, on disk: copied there when it was in memory."""
        self._unmount(volume)
        upper = self._home(volume.name) / "upper"
        if upper.is_relative_to(self._memory.path):
            target = self._disk / volume.name / "upper"
            target.mkdir(mode=0o700, parents=True)
            _copy_upper(upper, target)
            upper = target
        return Released(upper, volume.snapshot)

    def close(self) -> None:
        with self._mutex:
            for name in self._mounted:
                mount.umount(str(self._memory.mounts / name))
            self._mounted.clear()

    def _discard(self, path: Path) -> None:
        trash = self._memory if path.is_relative_to(self._memory.path) else self._store
        trash.discard(path)

    def _home(self, name: str) -> Path:
        in_memory = self._memory.uppers / name
        return in_memory if in_memory.is_dir() else self._disk / name

    def _mount(self, volume: Volume) -> None:
        snapshot = self._store.snapshots.get(volume.snapshot or "")
        assert snapshot is not None, "a volume keeps its snapshot"
        home = self._home(volume.name)
        # The kernel refuses a work directory that a volatile mount left (overlayfs documentation,
        # "volatile mount"), and needs nothing of an older one.
        self._discard(home / "work")
        (home / "work").mkdir(mode=0o700)
        volume.mountpoint.mkdir(exist_ok=True)
        layers = tuple(str(layer) for layer in snapshot.layers)
        places = (str(home / "upper"), str(home / "work"))
        nodev = mount.MOUNT_ATTR_NODEV
        fd = mount.overlay(layers, *places, volatile=volume.ephemeral, attributes=nodev)
        try:
            mount.move_mount(fd, str(volume.mountpoint))
        finally:
            os.close(fd)

    def _unmount(self, volume: Volume) -> None:
        with self._mutex:
            if volume.name not in self._mounted:
                return
            mount.umount(str(volume.mountpoint))
            volume.mountpoint.rmdir()
            self._mounted.discard(volume.name)


def _copy_upper(upper: Path, target: Path) -> None:
    source_fd, target_fd = trees.open_tree(upper), trees.open_tree(target)
    try:
        copy_tree((source_fd,), target_fd, as_upper=True)
    finally:
        os.close(source_fd)
        os.close(target_fd)
