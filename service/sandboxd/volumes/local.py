"""Driver `local`: directories of the state root, empty or copy-on-write over a snapshot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.linux import mount
from sandboxd.store import Snapshot, trees
from sandboxd.volumes import places, union
from sandboxd.volumes.clones import clone
from sandboxd.volumes.copying import copy_tree
from sandboxd.volumes.hookspecs import Released, Request, Surroundings
from sandboxd.volumes.overlays import Overlays
from sandboxd.volumes.places import Place
from sandboxd.volumes.private_memory import PrivateMemory
from sandboxd.volumes.volume import Volume

_DATA: Final = "_data"
_OPTIONS: Final = {"copy": ("true", "false"), "upper": ("disk", "memory")}


class LocalDriver:
    """A volume is `volumes/NAME/_data`, or an overlay over its snapshot.

    Options, for volumes from a snapshot: `copy=true` copies all of it up front; `upper=disk` and
    `upper=memory` say where writes go, and one in memory ends with the service.
    """

    name = "local"

    def __init__(self, surroundings: Surroundings) -> None:
        self._store = surroundings.store
        self._directory = surroundings.store.root / "volumes"
        self._memory = PrivateMemory(surroundings.runtime_dir / "tmp", surroundings.store)
        self._overlays = Overlays(surroundings.store, self._memory)
        with surroundings.store.staging("probe") as staged:
            self._abilities = places.probe(staged, self._memory.path)

    def persists(self, options: Mapping[str, str]) -> bool:
        return options.get("upper") != "memory"

    def create(self, request: Request) -> Path:
        _check(request)
        try:
            return self._created(request)
        except OSError as error:
            self._overlays.discard(request.name)
            raise SandboxError.from_os(f"create volume {request.name}", error) from error

    def open(self, volume: Volume, subpath: str) -> int:
        if self._overlays.has(volume.name):
            return self._overlays.open(volume, subpath)
        return clone(volume.mountpoint, subpath, mount.MOUNT_ATTR_NODEV)

    def remove(self, volume: Volume) -> None:
        self._overlays.remove(volume)

    def release(self, volume: Volume) -> Released | None:
        if self._overlays.has(volume.name):
            return self._overlays.release(volume)
        return Released(volume.mountpoint, None)

    def restore(self, volumes: Sequence[Volume]) -> None:
        known = {volume.name for volume in volumes}
        for path in self._directory.iterdir():
            if path.name not in known:
                self._store.discard(path)
        for volume in volumes:
            plain = self._directory / volume.name / _DATA
            stacked = self._overlays.has(volume.name)
            volume.mountpoint = self._overlays.mountpoint(volume.name) if stacked else plain

    def close(self) -> None:
        self._overlays.close()
        self._memory.close()

    def _created(self, request: Request) -> Path:
        if request.snapshot is None:
            return self._plain(request.name)
        place = self._place(request, request.snapshot)
        if place is Place.COPY:
            return self._copied(request.name, request.snapshot)
        return self._overlays.create(request.name, request.snapshot, place)

    def _plain(self, name: str) -> Path:
        path = self._directory / name / _DATA
        path.mkdir(parents=True)
        path.chmod(0o755)
        return path

    def _place(self, request: Request, snapshot: Snapshot) -> Place:
        if request.options.get("copy") == "true":
            return Place.COPY
        asked = request.options.get("upper", "")
        if request.scratch and not asked:
            # It will be sealed, and what is on disk already need not be copied there.
            asked = "disk" if self._abilities.disk_upper else ""
        return places.choose(
            self._abilities,
            size=snapshot.size,
            free_memory=places.free_memory(self._memory.path),
            ephemeral=request.ephemeral,
            asked=asked,
        )

    def _copied(self, name: str, snapshot: Snapshot) -> Path:
        path = self._plain(name)
        target = trees.open_tree(path)
        try:
            with union.found(snapshot.layers, "/") as root:
                assert root is not None, "a snapshot has a tree"
                copy_tree(root, target)
        finally:
            os.close(target)
        return path


def _check(request: Request) -> None:
    for key, value in request.options.items():
        if key not in _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise BadRequest(f"invalid option: {key!r}", f"driver local knows {known}")
        if value not in _OPTIONS[key]:
            raise BadRequest(f"invalid option {key}={value}", " or ".join(_OPTIONS[key]))
        if request.snapshot is None:
            raise BadRequest(f"option {key}", "only a volume that starts from a snapshot has it")
