"""The manifests that images came with, as their registries wrote them: by the image's id."""

from __future__ import annotations

from sandboxd.images.registry.manifests import Manifest
from sandboxd.store import Store


class PulledManifests:
    """Rows of the table `manifests`; they go with their image."""

    def __init__(self, store: Store) -> None:
        self._table = store.database.manifests

    def record(self, image_id: str, manifest: Manifest) -> None:
        """Remember the manifest that the image came with last."""
        text = manifest.raw.decode("utf-8", "surrogateescape")
        self._table.put(image_id, {"manifest": text, "type": manifest.media_type})

    def of(self, image_id: str) -> Manifest | None:
        """The manifest, annotations and all; None for an image that came from no registry."""
        row = self._table.get(image_id)
        if row is None:
            return None
        return Manifest.parse(row["manifest"].encode("utf-8", "surrogateescape"), row["type"])
