"""Volumes as the engine knows them: who uses which, and whose lease they belong to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sandboxd.engine.events import Events
from sandboxd.engine.filters import Filters, matches_labels, truth
from sandboxd.engine.floors import Floors
from sandboxd.engine.leases import Lease
from sandboxd.engine.registry import Registry
from sandboxd.engine.trees import tree_size
from sandboxd.errors import Conflict, NoSuchVolume, SandboxError

if TYPE_CHECKING:
    from sandboxd.volumes import Volume

log = logging.getLogger("sandboxd.engine")


class VolumeUse:
    def __init__(self, floors: Floors, registry: Registry, events: Events) -> None:
        self._volumes = floors.volumes
        self._registry = registry
        self._events = events

    def create(
        self,
        name: str | None,
        *,
        driver: str,
        labels: Mapping[str, str],
        options: Mapping[str, str],
        snapshot: str | None,
        scratch: bool,
        lease: Lease | None,
    ) -> Volume:
        """Make a volume, or find the one of that name; a fresh one goes with the lease.

        `scratch` counts for an empty one only: what starts from a snapshot is written by a test
        far more often than it is sealed, so its upper directory lies where writing is cheap.
        """
        if lease:
            lease.check()
        known = {volume.name for volume in self._volumes.list({})} if name else set()
        volume = self._volumes.create(
            name,
            driver=driver,
            labels=dict(labels),
            options=dict(options),
            snapshot=snapshot,
            scratch=scratch and snapshot is None,
            ephemeral=True if lease else None,
        )
        if volume.name not in known:
            self._publish(volume, "create")
            if lease:
                lease.own_volume(volume.name)
        return volume

    def list(self, filters: Filters) -> Sequence[Volume]:
        """By name, label, driver, and `dangling`: whether no container uses it."""
        own = {key: list(values) for key, values in filters.items() if key != "dangling"}
        volumes = self._volumes.list(own)
        for value in filters.get("dangling", ()):
            wanted = truth("dangling", value)
            volumes = [each for each in volumes if bool(self.users(each.name)) != wanted]
        return list(volumes)

    def users(self, name: str) -> Sequence[str]:
        """The ids of the containers that mount it, running or not."""
        return [
            container.id
            for container in self._registry
            if any(point.volume == name for point in container.mounts)
        ]

    def remove(self, name: str, force: bool) -> None:
        """Raises Conflict while a container uses it; NoSuchVolume unless `force`."""
        if users := self.users(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        try:
            volume = self._volumes.get(name)
        except NoSuchVolume:
            if not force:
                raise
            return
        self._volumes.remove(name, force)
        self._publish(volume, "destroy")

    def release(self, name: str) -> None:
        """Remove one whose lease has ended; what prevents it is logged."""
        try:
            self.remove(name, True)
        except (SandboxError, OSError) as error:
            log.warning("volume %s outlives its lease: %s", name, error)

    def prune(self, filters: Filters, *, named_too: bool) -> tuple[Sequence[str], int]:
        """Remove what nothing uses; the names, and the bytes that were in them."""
        names, reclaimed = [], 0
        for volume in self.list({"dangling": ["true"]}):
            if not (named_too or volume.anonymous) or not matches_labels(volume.labels, filters):
                continue
            size = 0 if volume.snapshot else tree_size(volume.mountpoint)
            try:
                self.remove(volume.name, False)
            except Conflict:
                continue
            names.append(volume.name)
            reclaimed += size
        return names, reclaimed

    def _publish(self, volume: Volume, action: str) -> None:
        self._events.publish("volume", action, volume.name, {"driver": volume.driver})
