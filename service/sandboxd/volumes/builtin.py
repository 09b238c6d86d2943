"""The drivers that come with the service, registered like anybody else's."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxd.volumes.hookspecs import Surroundings, VolumeDriver, hookimpl
from sandboxd.volumes.local import LocalDriver
from sandboxd.volumes.sockets import SocketDriver


@hookimpl
def sandbox_volume_drivers(surroundings: Surroundings) -> Sequence[VolumeDriver]:
    return [LocalDriver(surroundings), SocketDriver(surroundings)]
