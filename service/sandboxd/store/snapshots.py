"""Sealed snapshots: directory trees that volumes start from, found by the key of their recipe.

A tree lies under the digest of its content and never changes; two keys with one content share it.
A snapshot that was built from another one is a stack: its own tree is an overlay's upper directory,
whiteouts and opaque marks included, over the trees of its base.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxd.errors import Conflict, NoSuchSnapshot, SandboxError
from sandboxd.store import trees
from sandboxd.store.database import Database, Document
from sandboxd.store.digests import hex_of
from sandboxd.store.durable import publish_tree
from sandboxd.store.locks import Locks
from sandboxd.store.pins import Pins
from sandboxd.store.trash import Trash


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of a stack that came from elsewhere: digest of its content, bytes, entries, and where
    it lies in staging, None when the store has it already."""

    digest: str
    size: int
    files: int
    staged: Path | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`size` in bytes and `files` count the whole stack; `created` is in seconds since 1970."""

    key: str
    digest: str
    layers: tuple[Path, ...]
    size: int
    files: int
    created: float
    spec: dict[str, Any]

    @property
    def trees(self) -> tuple[str, ...]:
        """The digests under which the stack's trees lie, topmost first."""
        return tuple(f"sha256:{layer.name}" for layer in self.layers)


class Snapshots:
    def __init__(
        self, directory: Path, database: Database, locks: Locks, trash: Trash, pins: Pins
    ) -> None:
        self._directory, self._database = directory, database
        self._locks, self._trash, self._pins = locks, trash, pins
        self._mutex = threading.Lock()
        self._used: dict[str, float] = {}
        self._known = self._loaded()

    def get(self, key: str) -> Snapshot | None:
        with self._mutex:
            return self._known.get(key)

    def list(self) -> Sequence[Snapshot]:
        """All snapshots, oldest first."""
        with self._mutex:
            return sorted(self._known.values(), key=lambda snapshot: snapshot.created)

    def tree_path(self, digest: str) -> Path:
        """Where the tree with this content digest is or would be."""
        return self._directory / hex_of(digest)

    def seal(self, key: str, tree: Path, *, base: str | None, spec: dict[str, Any]) -> Snapshot:
        """Make a snapshot of `tree`, by rename: `tree` must lie in the state root and at rest.

        With `base`, a snapshot's key, `tree` is the upper directory of an overlay over that. Where
        `key` was sealed before, that snapshot is returned and `tree` dropped: the first one stays.
        Raises NoSuchSnapshot for an unknown base, NoSpace when the disk is full.
        """
        hex_of(key)
        content = self._measured(tree)
        pinned = [content.digest] if base is None else [content.digest, base]
        with self._locks.hold(key, content.digest), self._pins.held(*pinned):
            existing = self.get(key)
            if existing is not None:
                self._trash.discard(tree)
                return existing
            snapshot = self._planned(key, content, base, spec)
            self._publish(tree, snapshot)
            return snapshot

    def has_tree(self, digest: str) -> bool:
        """Whether some snapshot has the tree with this content; pin the digest before."""
        return self._is_referred(hex_of(digest))

    def adopt(
        self, key: str, stack: Sequence[Tree], *, created: float, spec: dict[str, Any]
    ) -> Snapshot:
        """Make a snapshot of trees that were measured, topmost first, by renaming the staged ones.

        The caller has pinned their digests. Where `key` was sealed before, that snapshot is
        returned. Raises NoSuchSnapshot for a tree that is not here after all, NoSpace.
        """
        hex_of(key)
        digests = [tree.digest for tree in stack]
        with self._locks.hold(key, *digests), self._pins.held(*digests):
            if existing := self.get(key):
                return existing
            layers = tuple(self.tree_path(digest) for digest in digests)
            size, files = sum(tree.size for tree in stack), sum(tree.files for tree in stack)
            snapshot = Snapshot(key, _stacked(layers), layers, size, files, created, spec)
            for tree in stack:
                if tree.staged is not None:
                    self._place(tree.staged, self.tree_path(tree.digest), key)
                elif not self.has_tree(tree.digest):
                    raise NoSuchSnapshot.named(tree.digest)
            self._write(snapshot)
            # It may be old, and is wanted now.
            self.touch(key)
            return snapshot

    def touch(self, key: str) -> None:
        """Note that a volume starts from this snapshot now; `save_usage` writes it down."""
        with self._mutex:
            self._used[key] = time.time()

    def save_usage(self) -> None:
        """Write down when each snapshot was last used."""
        with self._mutex:
            changed = {key: self._used[key] for key in self._known.keys() & self._used.keys()}
        with self._database.transaction():
            for key, used in changed.items():
                row = self._database.snapshots.get(key)
                # A process beside the service knows an older moment.
                if row is not None and row.get("used", 0) < used:
                    self._database.snapshots.put(key, {**row, "used": used})

    def delete(self, key: str) -> None:
        """Forget a snapshot. Raises NoSuchSnapshot, or Conflict while a volume starts from it.

        Its trees stay while another snapshot refers to them.
        """
        with self._pins.frozen() as pinned:
            snapshot = self.get(key)
            if snapshot is None:
                raise NoSuchSnapshot.named(key)
            volumes = self._database.volumes.all().items()
            users = [name for name, row in volumes if row.get("snapshot") == key]
            if users or key in pinned:
                raise Conflict(f"snapshot {key} is in use", ", ".join(users), "remove its volumes")
            self.forget([snapshot], pinned)

    def forget(self, gone: Sequence[Snapshot], pinned: frozenset[str]) -> None:
        """Drop the rows of `gone`, and the trees that no other snapshot and no pin names."""
        with self._database.releasing():
            for snapshot in gone:
                self._database.snapshots.delete(snapshot.key)
        with self._mutex:
            for snapshot in gone:
                self._known.pop(snapshot.key, None)
                self._used.pop(snapshot.key, None)
            kept = {tree for snapshot in self._known.values() for tree in snapshot.trees}
        loose = {tree for snapshot in gone for tree in snapshot.trees} - kept - pinned
        for tree in loose:
            self._trash.discard(self.tree_path(tree))

    def unused_since(self, moment: float) -> Sequence[Snapshot]:
        """Snapshots that no volume started from after `moment`, in seconds since 1970."""
        with self._mutex:
            return [
                snapshot
                for key, snapshot in self._known.items()
                if max(self._used.get(key, 0), snapshot.created) < moment
            ]

    def _loaded(self) -> dict[str, Snapshot]:
        """What the database knows, less what lost a tree: that is built again when needed."""
        known = {}
        for key, row in self._database.snapshots.all().items():
            layers = tuple(self.tree_path(digest) for digest in row["trees"])
            if all(layer.is_dir() for layer in layers):
                fields = (row["size"], row["files"], row["created"], row["spec"])
                known[key] = Snapshot(key, row["digest"], layers, *fields)
                self._used[key] = row.get("used", 0)
        return known

    def _measured(self, tree: Path) -> trees.Content:
        fd = trees.open_tree(tree)
        try:
            return trees.measure(fd)
        except OSError as error:
            raise SandboxError.from_os(f"seal {tree.name}", error) from error
        finally:
            os.close(fd)

    def _planned(
        self, key: str, content: trees.Content, base: str | None, spec: dict[str, Any]
    ) -> Snapshot:
        top = (self.tree_path(content.digest),)
        created = time.time()
        if base is None:
            return Snapshot(key, content.digest, top, content.size, content.files, created, spec)
        below = self.get(base)
        if below is None:
            raise NoSuchSnapshot.named(base)
        layers = top + below.layers
        size, files = content.size + below.size, content.files + below.files
        return Snapshot(key, _stacked(layers), layers, size, files, created, spec)

    def _publish(self, tree: Path, snapshot: Snapshot) -> None:
        self._place(tree, snapshot.layers[0], snapshot.key)
        self._write(snapshot)

    def _place(self, tree: Path, target: Path, key: str) -> None:
        """Give a finished tree its name; where it is there already, drop it."""
        try:
            if self._is_referred(target.name):
                self._trash.discard(tree)
            else:
                # A tree without a row: a crash fell between the rename and the commit.
                self._trash.discard(target)
                publish_tree(tree, target)
        except OSError as error:
            raise SandboxError.from_os(f"seal snapshot {key}", error) from error

    def _write(self, snapshot: Snapshot) -> None:
        with self._database.transaction(durable=True):
            self._database.snapshots.put(snapshot.key, _document(snapshot))
        with self._mutex:
            self._known[snapshot.key] = snapshot

    def _is_referred(self, tree_name: str) -> bool:
        with self._mutex:
            named = (layer.name for each in self._known.values() for layer in each.layers)
            return tree_name in named and (self._directory / tree_name).is_dir()


def _stacked(layers: Sequence[Path]) -> str:
    """The digest of a stack: of one tree its own."""
    if len(layers) == 1:
        return f"sha256:{layers[0].name}"
    names = "\n".join(layer.name for layer in layers)
    return f"sha256:{hashlib.sha256(names.encode()).hexdigest()}"


def _document(snapshot: Snapshot) -> Document:
    return {
        "digest": snapshot.digest,
        "trees": list(snapshot.trees),
        "size": snapshot.size,
        "files": snapshot.files,
        "created": snapshot.created,
        "spec": snapshot.spec,
    }
