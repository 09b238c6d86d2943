"""The volumes of one service: made, found, mounted, filled, sealed and removed.

Each belongs to a driver. Records of those that outlive the service are in the database.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pluggy

from sandboxd.errors import BadRequest, Conflict, NoSuchSnapshot, NoSuchVolume, SandboxError
from sandboxd.linux import mount
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Snapshot, Store, trees
from sandboxd.volumes import builtin, hookspecs, union
from sandboxd.volumes.binds import bind
from sandboxd.volumes.copying import copy_tree
from sandboxd.volumes.filters import Filters, selected
from sandboxd.volumes.hookspecs import Request, Surroundings, VolumeDriver
from sandboxd.volumes.volume import Volume, check_name


class Volumes:
    """Call it from inside the outer user namespace, as its user 0."""

    def __init__(
        self, store: Store, idmap: IdMap, runtime_dir: Path, *, plugins: Sequence[object] = ()
    ) -> None:
        """Start the drivers, those of `plugins` and of installed packages too, and sweep."""
        self._store = store
        self._drivers = _drivers(Surroundings(store, idmap, runtime_dir), plugins)
        self._mutex = threading.RLock()
        rows = store.database.volumes.all()
        self._volumes = {name: Volume.from_document(name, row) for name, row in rows.items()}
        for volume in self._volumes.values():
            if volume.snapshot is not None:
                store.hold_pin(volume.snapshot)
        for name, driver in self._drivers.items():
            mine = [volume for volume in self._volumes.values() if volume.driver == name]
            driver.restore(mine)

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        snapshot: str | None = None,
        scratch: bool = False,
        ephemeral: bool | None = None,
    ) -> Volume:
        """A new volume, or the one of that name; without a name it gets a random one.

        `snapshot` is the key of what it starts from. An `ephemeral` volume ends with the service
        and leaves no record; by default that is one from a snapshot without a name of its own. A
        `scratch` volume is one that will be filled and sealed, and is ephemeral. Raises Conflict
        when the name belongs to a volume of another driver or snapshot, BadRequest,
        NoSuchSnapshot, NoSpace.
        """
        with self._mutex:
            if name is not None and (found := self._volumes.get(check_name(name))) is not None:
                return _same(found, driver, snapshot)
            chosen = self._driver(driver)
            if ephemeral is None:
                ephemeral = name is None and snapshot is not None
            volume = Volume(
                name or os.urandom(32).hex(),
                driver,
                Path(),
                time.time(),
                dict(labels or {}),
                dict(options or {}),
                anonymous=name is None,
                snapshot=snapshot,
                ephemeral=ephemeral or scratch or not chosen.persists(options or {}),
            )
            self._make(chosen, volume, scratch)
            return volume

    def get(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        with self._mutex:
            try:
                return self._volumes[name]
            except KeyError:
                raise NoSuchVolume.named(name) from None

    def list(self, filters: Filters | None = None) -> Sequence[Volume]:
        """The volumes that pass the filters, by name."""
        with self._mutex:
            volumes = sorted(self._volumes.values(), key=lambda volume: volume.name)
        return selected(volumes, filters or {})

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume that nothing uses. Raises NoSuchVolume, unless `force`."""
        with self._mutex:
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NoSuchVolume.named(name)
            self._forget(volume)

    def mount(self, volume: Volume, *, subpath: str = "", readonly: bool = False) -> int:
        """A detached mount of the volume or of a directory in it; the caller closes it.

        Raises BadRequest for a subpath that is not there or leads out.
        """
        try:
            fd = self._driver(volume.driver).open(volume, subpath)
            if readonly:
                mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=fd)
        except OSError as error:
            raise SandboxError.from_os(f"mount volume {volume.name}", error) from error
        return fd

    def bind(self, source: str, *, readonly: bool, create: bool) -> tuple[int, bool]:
        """A host path as a detached mount, and whether it is a file (see `binds.bind`)."""
        return bind(source, readonly=readonly, create=create)

    def populate(self, volume: Volume, lowers: Sequence[Path], path: str) -> None:
        """Fill an empty volume with what an image has at `path`, its owner and mode too.

        `lowers` are the image's directories, topmost first. Nothing happens where the volume has
        content or the image no such directory. Blocks. Raises NoSpace.
        """
        fd = self.mount(volume)
        try:
            target = os.open(".", trees.DIRECTORY, dir_fd=fd)
            try:
                if not os.listdir(target):
                    _fill(target, lowers, path)
            finally:
                os.close(target)
        except OSError as error:
            raise SandboxError.from_os(f"fill volume {volume.name}", error) from error
        finally:
            os.close(fd)

    def seal(self, volume: Volume, key: str, spec: dict[str, Any]) -> Snapshot:
        """Make a snapshot of a volume that nothing uses any more; the volume is gone then.

        One that starts from a snapshot itself is stacked on that. Blocks. Raises BadRequest for a
        driver that cannot, NoSpace; the volume is still there then.
        """
        try:
            released = self._driver(volume.driver).release(volume)
        except OSError as error:
            raise SandboxError.from_os(f"seal volume {volume.name}", error) from error
        if released is None:
            raise BadRequest(f"seal volume {volume.name}", f"driver {volume.driver} cannot")
        snapshot = self._store.snapshots.seal(key, released.tree, base=released.base, spec=spec)
        self.remove(volume.name, force=True)
        return snapshot

    def close(self) -> None:
        """Unmount everything; ephemeral volumes are gone then."""
        with self._mutex:
            for volume in [volume for volume in self._volumes.values() if volume.ephemeral]:
                self._forget(volume)
            for driver in self._drivers.values():
                driver.close()

    def _make(self, driver: VolumeDriver, volume: Volume, scratch: bool) -> None:
        """Content first, record second: a crash in between leaves what `sweep` finds."""
        snapshot = None if volume.snapshot is None else self._pinned(volume.snapshot)
        request = Request(volume.name, volume.options, snapshot, scratch, volume.ephemeral)
        try:
            volume.mountpoint = driver.create(request)
            if not volume.ephemeral:
                with self._store.database.transaction(durable=True):
                    self._store.database.volumes.put(volume.name, volume.to_document())
        except BaseException:
            if volume.mountpoint != Path():
                driver.remove(volume)
            if volume.snapshot is not None:
                self._store.release_pin(volume.snapshot)
            raise
        self._volumes[volume.name] = volume

    def _pinned(self, key: str) -> Snapshot:
        """The snapshot, which stays until the pin is given back."""
        self._store.hold_pin(key)
        snapshot = self._store.snapshots.get(key)
        if snapshot is None:
            self._store.release_pin(key)
            raise NoSuchSnapshot.named(key)
        self._store.snapshots.touch(key)
        return snapshot

    def _forget(self, volume: Volume) -> None:
        """Record first, content second, so that nothing half-removed is ever found again."""
        if not volume.ephemeral:
            with self._store.database.releasing():
                self._store.database.volumes.delete(volume.name)
        del self._volumes[volume.name]
        self._driver(volume.driver).remove(volume)
        if volume.snapshot is not None:
            self._store.release_pin(volume.snapshot)

    def _driver(self, name: str) -> VolumeDriver:
        try:
            return self._drivers[name]
        except KeyError:
            known = ", ".join(sorted(self._drivers))
            raise BadRequest(f"error looking up volume plugin {name}", f"known: {known}") from None


def _drivers(surroundings: Surroundings, plugins: Sequence[object]) -> dict[str, VolumeDriver]:
    """By name, in the order of registration: a plugin cannot take a built-in driver's name."""
    manager = pluggy.PluginManager("sandbox")
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints("sandbox")
    for plugin in plugins:
        manager.register(plugin)
    manager.register(builtin)
    brought = manager.hook.sandbox_volume_drivers(surroundings=surroundings)
    drivers: dict[str, VolumeDriver] = {}
    for driver in (driver for group in brought for driver in group):
        drivers.setdefault(driver.name, driver)
    return drivers


def _same(found: Volume, driver: str, snapshot: str | None) -> Volume:
    """Docker answers a second create with the volume that is there, if it is what was asked for."""
    if found.driver != driver or found.snapshot != snapshot:
        what = f"create {found.name}: conflict: volume name must be unique"
        origin = f", snapshot {found.snapshot}" if found.snapshot else ""
        raise Conflict(what, f"it exists with driver {found.driver}{origin}", "another name")
    return found


def _fill(target: int, lowers: Sequence[Path], path: str) -> None:
    with union.found(lowers, path) as source:
        if source is not None:
            copy_tree(source, target, of_machine=lowers[-1] == Path("/"))
