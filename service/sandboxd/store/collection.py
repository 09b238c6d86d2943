"""Garbage collection: what nothing refers to goes, what anything uses stays.

Roots are the rows of images, build steps, snapshots and volumes, those of the table of roots, what
the caller names as in use, and pins. Whoever makes a new reference pins the digest before it looks
whether the thing is there, and holds the pin until its row is committed. Collection reads the pins
first and the rows second, and no pin can be taken until it is done, so there is no moment at which
a thing is in use and invisible. Another process's pins are not seen: only the service collects, and
what a registry beside it keeps is a row that is looked at under the digest's lock.
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
from sandboxd.store.roots import Roots
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
        roots: Roots,
        locks: Locks,
        pins: Pins,
        trash: Trash,
    ) -> None:
        self._root, self._database, self._trash = root, database, trash
        self._blobs, self._layers, self._snapshots = blobs, layers, snapshots
        self._roots, self._locks, self._pins = roots, locks, pins

    def sweep(self) -> None:
        """Take away trees that a crash left without a row."""
        for directory, known in (
            ("layers/sha256", self._layer_rows),
            ("recipes", self._layer_rows),
            ("snapshots", self._trees),
        ):
            digests = known()
            for path in (self._root / directory).iterdir():
                digest = f"sha256:{path.name}"
                if digest in digests:
                    continue
                with self._locks.attempt(digest) as free:
                    # Another process may have published it since: the rows are read once more.
                    if free and digest not in known():
                        self._trash.discard(path)

    def _layer_rows(self) -> set[str]:
        return set(self._database.layers.all())

    def _trees(self) -> set[str]:
        rows = self._database.snapshots.all().values()
        return {tree for row in rows for tree in row["trees"]}

    def collect(self, in_use: Iterable[str], unused_for: float | None) -> Reclaimed:
        with self._pins.frozen() as pinned:
            kept = pinned | frozenset(in_use)
            snapshots: Sequence[Snapshot] = (
                [] if unused_for is None else self._idle(time.time() - unused_for, kept)
            )
            self._snapshots.forget(snapshots, kept)
            images = list(self._database.images.all().values())
            referred = kept | {layer for image in images for layer in image["layers"]}
            referred |= self._built_layers(unused_for)
            layers, size = self._drop_layers(referred)
            blobs, more = self._drop_blobs(
                kept | self._roots.all() | {blob for image in images for blob in image["blobs"]}
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

    def _built_layers(self, unused_for: float | None) -> set[str]:
        """The layers of the build cache, less those of steps that were not used for so long."""
        rows = self._database.build_cache.all()
        if unused_for is not None:
            for key, row in list(rows.items()):
                if row["used"] < time.time() - unused_for:
                    self._database.build_cache.delete(key)
                    del rows[key]
        return {row["layer"] for row in rows.values() if row["layer"]}

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
            if digest in referred:
                continue
            with self._locks.attempt(digest) as free:
                if free and not self._roots.keeps(digest):
                    size += self._blobs.stat(digest).size
                    self._blobs.delete(digest)
                    dropped.append(digest)
        return dropped, size
