"""Garbage collection: what nothing refers to goes, what anything uses stays.

Roots are the rows of images, snapshots and volumes, what the caller names as in use, and pins.
Whoever makes a new reference pins the digest before it looks whether the thing is there, and holds
the pin until its row is committed. Collection reads the pins first and the rows second, and no pin
can be taken until it is done, so there is no moment at which a thing is in use and invisible.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxd.store.blobs import Blobs
from sandboxd.store.database import Database
from sandboxd.store.layers import Layers
from sandboxd.store.locks import Locks
from sandboxd.store.pins import Pins
from sandboxd.store.snapshots import Snapshot, Snapshots
from sandboxd.store.trash import Trash


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What a collection removed, by digest or key, and how many bytes that held."""

    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    snapshots: tuple[str, ...]
    size: int


class Collector:
    def __init__(
        self,
        root: Path,
        database: Database,
        blobs: Blobs,
        layers: Layers,
        snapshots: Snapshots,
        locks: Locks,
        pins: Pins,
        trash: Trash,
    ) -> None:
        self._root, self._database, self._trash = root, database, trash
        self._blobs, self._layers, self._snapshots = blobs, layers, snapshots
        self._locks, self._pins = locks, pins

    def sweep(self) -> None:
        """Take away trees that a crash left without a row."""
        rows = self._database.snapshots.all().values()
        known = set(self._database.layers.all())
        trees = {tree for row in rows for tree in row["trees"]}
        for directory, digests in (("layers/sha256", known), ("snapshots", trees)):
            for path in (self._root / directory).iterdir():
                digest = f"sha256:{path.name}"
                with self._locks.attempt(digest) as free:
                    if free and digest not in digests:
                        self._trash.discard(path)

    def collect(self, in_use: Iterable[str], unused_for: float | None) -> Reclaimed:
        with self._pins.frozen() as pinned:
            kept = pinned | frozenset(in_use)
            snapshots: Sequence[Snapshot] = (
                [] if unused_for is None else self._idle(time.time() - unused_for, kept)
            )
            self._snapshots.forget(snapshots, kept)
            images = list(self._database.images.all().values())
            referred = kept | {layer for image in images for layer in image["layers"]}
            layers, size = self._drop_layers(referred)
            blobs, more = self._drop_blobs(
                kept | {blob for image in images for blob in image["blobs"]}
            )
        keys = tuple(snapshot.key for snapshot in snapshots)
        total = size + more + sum(snapshot.size for snapshot in snapshots)
        return Reclaimed(tuple(layers), tuple(blobs), keys, total)

    def _idle(self, moment: float, kept: frozenset[str]) -> Sequence[Snapshot]:
        started = {row.get("snapshot") for row in self._database.volumes.all().values()}
        return [
            snapshot
            for snapshot in self._snapshots.unused_since(moment)
            if snapshot.key not in kept and snapshot.key not in started
        ]

    def _drop_layers(self, referred: frozenset[str]) -> tuple[list[str], int]:
        dropped, size = [], 0
        for diff_id, metadata in self._database.layers.all().items():
            with self._locks.attempt(diff_id) as free:
                if free and diff_id not in referred:
                    self._layers.delete(diff_id)
                    dropped.append(diff_id)
                    size += metadata.get("size", 0)
        return dropped, size

    def _drop_blobs(self, referred: frozenset[str]) -> tuple[list[str], int]:
        dropped, size = [], 0
        for path in (self._root / "blobs/sha256").iterdir():
            digest = f"sha256:{path.name}"
            with self._locks.attempt(digest) as free:
                if free and digest not in referred:
                    size += self._blobs.stat(digest).size
                    self._blobs.delete(digest)
                    dropped.append(digest)
        return dropped, size
