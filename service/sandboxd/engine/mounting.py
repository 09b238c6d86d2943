"""Mount points of containers: volumes found or made at create, opened as mounts at start."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.engine.container import MountPoint
from sandboxd.engine.floors import Floors
from sandboxd.engine.settings import MountRequest
from sandboxd.errors import BadRequest, NoSuchVolume, SandboxError
from sandboxd.launcher.spec import Mount

if TYPE_CHECKING:
    from sandboxd.engine.leases import Lease
    from sandboxd.images import Image
    from sandboxd.volumes import Volume

log = logging.getLogger("sandboxd.engine")


class Mounting:
    """Where the engine meets the volumes."""

    def __init__(self, floors: Floors) -> None:
        self._floors = floors

    async def resolve(
        self,
        requests: Iterable[MountRequest],
        image: Image,
        *,
        lease: Lease | None = None,
        ephemeral: bool = False,
    ) -> tuple[MountPoint, ...]:
        """Give each request its volume, made and filled from the image where Docker would.

        Raises BadRequest for a bind source that is missing, before any volume is made, and whatever
        the volumes raise. Anonymous volumes are gone then; a named one may have users already.

        A named volume that is made here belongs to `lease`; the anonymous ones of an `ephemeral`
        container need no record.
        """
        requests = tuple(requests)
        for request in requests:
            if request.kind == "bind" and not request.create_source:
                _check_source(request)
        points: list[MountPoint] = []
        try:
            for request in requests:
                volume = None
                if request.kind == "volume":
                    volume = self._volume(request, lease, ephemeral=ephemeral)
                name = volume.name if volume else ""
                points.append(MountPoint(request, name, anonymous=request.anonymous))
                if volume and request.copy and not request.subpath and not volume.snapshot:
                    await self._populate(volume, image, request.target)
        except BaseException:
            self.remove_anonymous(points)
            raise
        return tuple(points)

    def _volume(self, request: MountRequest, lease: Lease | None, *, ephemeral: bool) -> Volume:
        volumes = self._floors.volumes
        if request.source:
            try:
                found = volumes.get(request.source)
            except NoSuchVolume:
                pass
            else:
                if request.driver in ("", found.driver):
                    return found
        made = volumes.create(
            request.source or None,
            driver=request.driver or "local",
            labels=dict(request.labels),
            options=dict(request.options),
            ephemeral=True if lease or (request.anonymous and ephemeral) else None,
        )
        if lease and request.source:
            lease.own_volume(made.name)
        return made

    async def _populate(self, volume: Volume, image: Image, path: str) -> None:
        floors = self._floors
        lowers = floors.images.lowers(image)
        if _any_has(lowers, path):
            await asyncio.to_thread(floors.volumes.populate, volume, lowers, path)

    @contextmanager
    def opened(self, points: Iterable[MountPoint]) -> Iterator[tuple[Mount, ...]]:
        """The mounts for the launcher; their descriptors are closed at the end."""
        mounts: list[Mount] = []
        try:
            for point in points:
                mounts.append(self._open(point))
            yield tuple(mounts)
        finally:
            for mount in mounts:
                if mount.source_fd is not None:
                    os.close(mount.source_fd)

    def _open(self, point: MountPoint) -> Mount:
        request, volumes = point.request, self._floors.volumes
        target, readonly = request.target, request.readonly
        if request.kind == "tmpfs":
            return Mount(target, None, readonly, tmpfs_options=request.tmpfs_options)
        if request.kind == "bind":
            fd, is_file = volumes.bind(
                request.source, readonly=readonly, create=request.create_source
            )
            cow = request.copy_on_write
            return Mount(target, fd, readonly, is_file=is_file, copy_on_write=cow)
        volume = volumes.get(point.volume)
        fd = volumes.mount(volume, subpath=request.subpath, readonly=readonly)
        return Mount(target, fd, readonly)

    def remove_anonymous(self, points: Iterable[MountPoint]) -> None:
        """Remove the volumes made for one container alone; failures are logged, nobody waits."""
        for point in points:
            if point.anonymous:
                try:
                    self._floors.volumes.remove(point.volume, True)
                except (SandboxError, OSError) as error:
                    log.warning("volume %s stays behind: %s", point.volume, error)


def _check_source(request: MountRequest) -> None:
    path = request.source
    if not os.path.lexists(path):
        raise BadRequest(f"bind source path does not exist: {path}")
    if request.copy_on_write and not os.path.isdir(path):
        raise BadRequest(f"bind source {path}", "only a directory can be bound copy-on-write")


def _any_has(lowers: Sequence[Path], path: str) -> bool:
    """Whether the image might have content there; most often not, and no thread is needed."""
    return any(os.path.lexists(lower / path.lstrip("/")) for lower in lowers)
