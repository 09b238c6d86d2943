"""The extension point for volume drivers, pluggy project `sandbox`.

A plugin is any object or module with this hook, in the entry point group `sandbox`. The built-in
drivers `local` and `socket` come in through it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pluggy

from sandboxd.linux.idmap import IdMap
from sandboxd.store import Snapshot, Store
from sandboxd.volumes.volume import Volume

hookspec = pluggy.HookspecMarker("sandbox")
hookimpl = pluggy.HookimplMarker("sandbox")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What drivers may build on. `runtime_dir` holds what ends with the service."""

    store: Store
    idmap: IdMap
    runtime_dir: Path


@dataclass(frozen=True, slots=True)
class Request:
    """A volume to be made. `scratch` asks for one that will be filled once and then sealed."""

    name: str
    options: dict[str, str]
    snapshot: Snapshot | None
    scratch: bool
    ephemeral: bool


@dataclass(frozen=True, slots=True)
class Released:
    """A directory in the state root to be sealed, and the key of the snapshot that it lies over."""

    tree: Path
    base: str | None


class VolumeDriver(Protocol):
    """Makes and removes the content of volumes; names, labels and records are not its business.

    Methods raise SandboxErrors and are called from any thread, never twice at once for one volume.
    """

    name: str

    def persists(self, options: Mapping[str, str]) -> bool:
        """Whether a volume with these options outlives the service."""
        ...

    def create(self, request: Request) -> Path:
        """Make the volume; returns where its content is. Raises BadRequest for unknown options."""
        ...

    def open(self, volume: Volume, subpath: str) -> int:
        """A detached mount of the volume or of a directory in it, for the caller to close.

        `subpath`, empty for the whole, is resolved as if the volume were `/`.
        """
        ...

    def remove(self, volume: Volume) -> None:
        """Remove the content. A volume whose content is gone already is no error."""
        ...

    def release(self, volume: Volume) -> Released | None:
        """Give the volume up to be sealed; nothing may be mounted from it any more.

        None when this driver's volumes cannot be sealed. `remove` follows.
        """
        ...

    def restore(self, volumes: Sequence[Volume]) -> None:
        """Called once, with the volumes of this driver that outlived an earlier service.

        Set the mountpoint of each to where it is now; remove whatever else a crash left.
        """
        ...

    def close(self) -> None:
        """The service stops."""
        ...


@hookspec
def sandbox_volume_drivers(surroundings: Surroundings) -> Sequence[VolumeDriver]:
    """Called once when the service starts; returns the drivers that this plugin brings."""
    raise NotImplementedError
