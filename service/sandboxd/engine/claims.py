"""Single flight by key: one fills a snapshot, everybody else waits for it.

A client that seeds by itself claims the key, fills a volume, and has it sealed; its claim ends with
its lease. What the service builds itself goes through `SingleFlight`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxd.engine.leases import Lease
from sandboxd.errors import Conflict
from sandboxd.store.digests import hex_of

if TYPE_CHECKING:
    from sandboxd.store import Snapshot, Store


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Claim:
    lease: Lease
    over: asyncio.Future[None] = field(default_factory=_future)


class Claims:
    """Who may fill which snapshot."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claims: dict[str, _Claim] = {}

    async def claim(self, key: str, lease: Lease) -> Snapshot | None:
        """The snapshot once there is one; None for whoever is to build it.

        Raises BadRequest for a key that is no digest, Conflict when the lease has ended.
        """
        hex_of(key)
        while True:
            if snapshot := self._store.snapshots.get(key):
                return snapshot
            claim = self._claims.get(key)
            if claim is None:
                lease.own_claim(key)
                self._claims[key] = _Claim(lease)
                return None
            await asyncio.wait([claim.over])

    def check(self, key: str, lease: Lease) -> None:
        """Raises Conflict unless this lease is the one to build `key`."""
        claim = self._claims.get(key)
        if claim is None or claim.lease is not lease:
            raise Conflict(f"snapshot {key}", "this lease holds no claim to it", "claim it first")

    def abandon(self, key: str, lease: Lease) -> None:
        """Give the claim back: whoever waits next builds. Not holding one is no error."""
        claim = self._claims.get(key)
        lease.claims.pop(key, None)
        if claim and claim.lease is lease:
            del self._claims[key]
            claim.over.set_result(None)


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Snapshot]
    waiting: int = 0


class SingleFlight:
    """At most one build for each key; it is cancelled when nobody waits for it any more."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: str, build: Callable[[], Coroutine[Any, Any, Snapshot]]) -> Snapshot:
        """The result of the build that is under way, or of the one that this starts."""
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.get_running_loop().create_task(build()))
            self._flights[key] = flight
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.task.done() or not flight.waiting:
                # The next one to come starts a build of its own, not one that is being cancelled.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()
