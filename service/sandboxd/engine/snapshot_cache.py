"""A registry as a cache of snapshots: looked at before a recipe is built, filled after.

What goes wrong with it is a warning and never an error: the build goes on. A registry that could
not be reached is not tried again for a minute, so that not every recipe waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from sandboxd.errors import NoSuchSnapshot, SandboxError

if TYPE_CHECKING:
    from sandboxd.engine.snapshot_transport import Place, Transport
    from sandboxd.store import Snapshot

log = logging.getLogger("sandboxd.engine")

_PAUSE: Final = 60.0


class SnapshotCaches:
    """The registries that could not be used lately."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._failed: dict[str, tuple[float, str]] = {}

    def complaint(self, name: str) -> str:
        """Why the repository is not worth a try now, else empty."""
        until, why = self._failed.get(name, (0.0, ""))
        return why if time.monotonic() < until else ""

    def note(self, name: str, why: str) -> None:
        self._failed[name] = (time.monotonic() + _PAUSE, why)


class SnapshotCache:
    """One cache for one request. `push`: what is built here is stored there."""

    def __init__(self, caches: SnapshotCaches, place: Place, *, push: bool) -> None:
        self._caches, self._place, self._push = caches, place, push
        self.warning = ""
        """What went wrong, in one line; empty if nothing did."""
        self.hit = False
        """The snapshot came from there."""

    async def look(self, key: str) -> Snapshot | None:
        """The snapshot, fetched and kept here; None where the cache has none or cannot be used."""
        name = self._place.reference.name
        if why := self._caches.complaint(name):
            self.warning = why
            return None
        try:
            transport = self._caches.transport
            found = await asyncio.to_thread(transport.pull, self._place, key)
        except NoSuchSnapshot:
            return None
        except SandboxError as error:
            self._fail(f"the snapshot cache {name} is not used: {error}")
            return None
        self.hit = True
        log.info("snapshot %s came from %s", key, name)
        return found

    async def keep(self, key: str) -> None:
        """Store a snapshot that was built here, if that is wanted and the cache can be used."""
        name = self._place.reference.name
        if not self._push or self._caches.complaint(name):
            return
        try:
            sent = await asyncio.to_thread(self._caches.transport.push, key, self._place)
        except SandboxError as error:
            self._fail(f"snapshot {key} could not be stored in the cache {name}: {error}")
            return
        log.info("snapshot %s went to %s, %d bytes", key, sent.reference, sent.size)

    def _fail(self, warning: str) -> None:
        log.warning("%s", warning)
        self.warning = warning
        self._caches.note(self._place.reference.name, warning)
