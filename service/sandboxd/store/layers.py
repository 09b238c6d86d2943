"""Unpacked layers by diffID: directory trees that overlay mounts use as lower directories.

A layer's directory never changes once it has its name. What its tar archive could not give the tree
(devices, file capabilities, owners outside the id map) is in its metadata. A layer that came as an
archive has a recipe beside it, from which the same archive can be written once more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sandboxd.errors import NotFound, SandboxError
from sandboxd.store.database import Database, Document
from sandboxd.store.digests import hex_of
from sandboxd.store.durable import publish_trees
from sandboxd.store.locks import Locks
from sandboxd.store.trash import Trash


class StagedLayer(NamedTuple):
    """A finished tree with its metadata; `recipe` is a file on the same file system."""

    diff_id: str
    tree: Path
    metadata: Document
    recipe: Path | None = None


class Layers:
    def __init__(self, directory: Path, database: Database, locks: Locks, trash: Trash) -> None:
        self._directory, self._database = directory, database
        self._locks, self._trash = locks, trash
        self._recipes = directory.parent.parent / "recipes"

    def path(self, diff_id: str) -> Path:
        """Where the layer's tree is or would be. Raises BadRequest for a malformed diffID."""
        return self._directory / hex_of(diff_id)

    def has(self, diff_id: str) -> bool:
        """Whether the layer was published completely."""
        return self._database.layers.has(diff_id) and self.path(diff_id).is_dir()

    def metadata(self, diff_id: str) -> Document:
        """What `publish` was given. Raises NotFound."""
        found = self._database.layers.get(diff_id)
        if found is None:
            raise NotFound(f"No such layer: {diff_id}")
        return found

    def recipe(self, diff_id: str) -> Path | None:
        """The layer's recipe; None where its archive is written from the tree alone."""
        path = self._recipes / hex_of(diff_id)
        return path if path.exists() else None

    def publish(
        self, diff_id: str, staged: Path, metadata: Document, recipe: Path | None = None
    ) -> None:
        """`publish_all` of one layer."""
        self.publish_all([StagedLayer(diff_id, staged, metadata, recipe)])

    def publish_all(self, layers: Sequence[StagedLayer]) -> None:
        """Give finished trees their names, with one syncfs(2) for all of them, each one whole or
        not at all; where a layer exists already, drop what was staged.

        The caller pins the diffIDs until something refers to them, or collection may take them.
        """
        with self._locks.hold(*(layer.diff_id for layer in layers)):
            new = {layer.diff_id: layer for layer in layers if not self.has(layer.diff_id)}
            for layer in layers:
                if new.get(layer.diff_id) is not layer:
                    self._trash.discard(layer.tree)
            if not new:
                return
            try:
                self._publish_new(list(new.values()))
            except OSError as error:
                what = f"publish layer {', '.join(new)}"
                raise SandboxError.from_os(what, error) from error

    def _publish_new(self, layers: Sequence[StagedLayer]) -> None:
        for layer in layers:
            # A tree without a row: a crash fell between the rename and the commit.
            self._trash.discard(self.path(layer.diff_id))
            kept = self._recipes / hex_of(layer.diff_id)
            self._trash.discard(kept)
            if layer.recipe is not None:
                os.rename(layer.recipe, kept)
        publish_trees([(layer.tree, self.path(layer.diff_id)) for layer in layers])
        with self._database.transaction(durable=True):
            for layer in layers:
                self._database.layers.put(layer.diff_id, layer.metadata)

    def delete(self, diff_id: str) -> None:
        """Forget the layer, then take its tree away; what uses it must be gone before."""
        self._database.layers.delete(diff_id)
        self._database.compressed.delete(diff_id)
        self._trash.discard(self.path(diff_id))
        self._trash.discard(self._recipes / hex_of(diff_id))
