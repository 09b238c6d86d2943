"""Unpacked layers by diffID: directory trees that overlay mounts use as lower directories.

A layer's directory never changes once it has its name. What its tar archive could not give the tree
(devices, file capabilities, owners outside the id map) is in its metadata. A layer that came as an
archive has a recipe beside it, from which the same archive can be written once more.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandboxd.errors import NotFound, SandboxError
from sandboxd.store.database import Database, Document
from sandboxd.store.digests import hex_of
from sandboxd.store.durable import publish_tree
from sandboxd.store.locks import Locks
from sandboxd.store.trash import Trash


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
        return self._database.layers.get(diff_id) is not None and self.path(diff_id).is_dir()

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
        """Give the finished tree `staged` its name; where the layer exists already, drop `staged`.

        `recipe` is a file on the same file system and goes with it. The caller pins `diff_id` until
        something refers to it, or collection may take it.
        """
        target = self.path(diff_id)
        with self._locks.hold(diff_id):
            if self.has(diff_id):
                self._trash.discard(staged)
                return
            # A tree without a row: a crash fell between the rename and the commit.
            self._trash.discard(target)
            kept = self._recipes / hex_of(diff_id)
            self._trash.discard(kept)
            try:
                if recipe is not None:
                    os.rename(recipe, kept)
                publish_tree(staged, target)
            except OSError as error:
                raise SandboxError.from_os(f"publish layer {diff_id}", error) from error
            with self._database.transaction(durable=True):
                self._database.layers.put(diff_id, metadata)

    def delete(self, diff_id: str) -> None:
        """Forget the layer, then take its tree away; what uses it must be gone before."""
        self._database.layers.delete(diff_id)
        self._database.compressed.delete(diff_id)
        self._trash.discard(self.path(diff_id))
        self._trash.discard(self._recipes / hex_of(diff_id))
