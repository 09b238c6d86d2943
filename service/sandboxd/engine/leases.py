"""Leases: what a client makes belongs to its open connection and goes when that closes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sandboxd.errors import Conflict, NotFound

if TYPE_CHECKING:
    from sandboxd.engine.container import Container

log = logging.getLogger("sandboxd.engine")


class Lease:
    """A list of things with one end; later things may rest on earlier ones, never the reverse."""

    def __init__(self, label: str) -> None:
        self.id = os.urandom(16).hex()
        self.label = label
        self.created = time.time()
        self.ended = False
        self.containers: dict[str, Container] = {}
        self.volumes: dict[str, None] = {}
        self.claims: dict[str, None] = {}

    def own(self, container: Container) -> None:
        """Raises Conflict when the lease has ended meanwhile: then nobody would remove it."""
        self.check()
        self.containers[container.id] = container

    def own_volume(self, name: str) -> None:
        self.check()
        self.volumes[name] = None

    def own_claim(self, key: str) -> None:
        self.check()
        self.claims[key] = None

    def check(self) -> None:
        """Raises Conflict once the lease has ended."""
        if self.ended:
            raise Conflict(f"lease {self.id} has ended", "its connection is closed")

    def about(self) -> dict[str, Any]:
        """For the list of leases; `Created` is in Unix seconds."""
        return {
            "Id": self.id,
            "Label": self.label,
            "Created": self.created,
            "Containers": list(self.containers),
            "Volumes": list(self.volumes),
            "Claims": list(self.claims),
        }


class Leases:
    """The open leases, and how one is given back."""

    def __init__(
        self,
        remove_container: Callable[[Container], Awaitable[None]],
        remove_volume: Callable[[str], None],
        abandon: Callable[[str, Lease], None],
    ) -> None:
        self._remove_container = remove_container
        self._remove_volume = remove_volume
        self._abandon = abandon
        self._open: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, label: str) -> Lease:
        lease = Lease(label)
        self._open[lease.id] = lease
        return lease

    def find(self, id: str) -> Lease:
        """Raises NotFound for one that is not open."""
        try:
            return self._open[id]
        except KeyError:
            raise NotFound(f"No such lease: {id}", mend="open one: POST /sandbox/leases") from None

    def list(self) -> list[Lease]:
        """Oldest first."""
        return list(self._open.values())

    async def release(self, lease: Lease) -> None:
        """Remove everything that the lease owns. What resists is logged and does not stop the rest.

        All containers are killed before the first is waited for.
        """
        lease.ended = True
        self._open.pop(lease.id, None)
        containers = list(lease.containers.values())
        for container in containers:
            if container.program:
                container.program.kill(signal.SIGKILL)
        removals = (self._remove_container(container) for container in containers)
        results = await asyncio.gather(*removals, return_exceptions=True)
        for key in list(lease.claims):
            self._abandon(key, lease)
        for name in reversed(lease.volumes):
            self._remove_volume(name)
        for container, result in zip(containers, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, NotFound | Conflict):
                log.warning("container %s outlives its lease: %s", container.id, result)
