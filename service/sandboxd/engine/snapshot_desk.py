"""Everything that is asked of snapshots: built, claimed, sealed, removed, sent and fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxd.engine.claims import Claims, SingleFlight
from sandboxd.engine.leases import Lease
from sandboxd.engine.recipes import Progress, Recipes, Run
from sandboxd.engine.registry import Registry
from sandboxd.engine.snapshot_cache import SnapshotCache, SnapshotCaches
from sandboxd.engine.snapshot_transport import Place, Sent, Transport
from sandboxd.engine.volume_use import VolumeUse
from sandboxd.errors import BadRequest, Conflict, NoSuchSnapshot
from sandboxd.images import Reference

if TYPE_CHECKING:
    from sandboxd.engine.floors import Floors
    from sandboxd.images.registry.credentials import Credentials
    from sandboxd.store import Snapshot


class SnapshotDesk:
    def __init__(self, floors: Floors, run: Run, registry: Registry, uses: VolumeUse) -> None:
        self._floors, self._registry, self._uses = floors, registry, uses
        self._recipes = Recipes(floors, run)
        self._claims = Claims(floors.store)
        self._transport = Transport(floors.store)
        self._caches = SnapshotCaches(self._transport)
        self._pulls = SingleFlight()

    @property
    def busy(self) -> int:
        """How many builds and pulls are under way."""
        return self._recipes.building + len(self._pulls)

    def cache(
        self, reference: str, credentials: Credentials | None, *, push: bool
    ) -> SnapshotCache:
        """A registry's repository to look into first. Raises BadRequest for one with a tag."""
        place = Reference.parse(reference)
        if place.tag or place.digest:
            why = "the tag is the snapshot's key"
            raise BadRequest(f"snapshot cache {reference}", why, f"write {place.name}")
        return SnapshotCache(self._caches, Place(place, credentials), push=push)

    async def build(
        self,
        recipe: Mapping[str, Any],
        progress: Progress | None = None,
        cache: SnapshotCache | None = None,
    ) -> Snapshot:
        """The snapshot that a recipe fills, fetched or built once for all who ask."""
        return await self._recipes.build(recipe, progress, cache)

    async def claim(
        self, key: str, lease: Lease, cache: SnapshotCache | None = None
    ) -> Snapshot | None:
        """The snapshot, or None for the one who is to fill it; others wait."""
        found = await self._claims.claim(key, lease)
        if found is not None or cache is None:
            return found
        try:
            found = await cache.look(key)
        except BaseException:
            self._claims.abandon(key, lease)
            raise
        if found is not None:
            self._claims.abandon(key, lease)
        return found

    async def seal(
        self,
        key: str,
        volume: str,
        spec: Mapping[str, Any],
        lease: Lease,
        cache: SnapshotCache | None = None,
    ) -> Snapshot:
        """Make a volume's tree the claimed snapshot; the volume is used up.

        Raises Conflict without the claim, or while a running container uses the volume.
        """
        self._claims.check(key, lease)
        for id in self._uses.users(volume):
            if self._registry.find(id).running:
                raise Conflict(f"seal {volume}: volume is in use - [{id}]")
        volumes = self._floors.volumes
        found = volumes.get(volume)
        snapshot = await asyncio.to_thread(volumes.seal, found, key, dict(spec))
        lease.volumes.pop(volume, None)
        self._claims.abandon(key, lease)
        if cache is not None:
            await cache.keep(key)
        return snapshot

    def abandon(self, key: str, lease: Lease) -> None:
        """Give a claim back: whoever waits next builds."""
        self._claims.abandon(key, lease)

    def remove(self, key: str) -> None:
        """Raises NoSuchSnapshot, or Conflict while a volume starts from it."""
        self._floors.store.snapshots.delete(key)

    async def push(self, key: str, reference: str, credentials: Credentials | None) -> Sent:
        """Store a snapshot in a registry, under its key where the reference has no tag.

        `key` may be the unique beginning of one. Raises NoSuchSnapshot, BadRequest, Forbidden,
        RegistryError.
        """
        place = Place(Reference.parse(reference), credentials)
        return await asyncio.to_thread(self._transport.push, self._full_key(key), place)

    async def pull(
        self, reference: str, credentials: Credentials | None, key: str | None = None
    ) -> Snapshot:
        """Fetch a snapshot, once for all who ask for the same. Raises as `push` does."""
        place = Place(Reference.parse(reference), credentials)

        async def fetched() -> Snapshot:
            return await asyncio.to_thread(self._transport.pull, place, key)

        return await self._pulls.join(f"{place.reference} {key}", fetched)

    def _full_key(self, prefix: str) -> str:
        """The key that begins so; `sha256:` may be left out. Raises NoSuchSnapshot, BadRequest."""
        wanted = prefix if prefix.startswith("sha256:") else f"sha256:{prefix}"
        known = [each.key for each in self._floors.store.snapshots.list()]
        found = [key for key in known if key.startswith(wanted)]
        if not found or wanted == "sha256:":
            raise NoSuchSnapshot.named(prefix)
        if len(found) > 1:
            raise BadRequest(f"ambiguous key {prefix}", "it is the beginning of more than one")
        return found[0]
