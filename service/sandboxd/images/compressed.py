"""Which compressed blobs a layer is known to be, in registries: by its diffID.

A layer's diffID is about its uncompressed archive; registries know compressed ones. The pairs are
learnt from pulls and pushes, and spare a push the compression and a registry the upload.
"""

from __future__ import annotations

from typing import Final

from sandboxd.images.registry.manifests import Descriptor
from sandboxd.store import Store

_KEPT: Final = 8


class CompressedLayers:
    """Rows of the table `compressed`; they go with their layer."""

    def __init__(self, store: Store) -> None:
        self._table = store.database.compressed

    def record(self, diff_id: str, blob: Descriptor) -> None:
        """Remember that the blob, decompressed, is the layer; the newest comes first."""
        others = [each for each in self.known(diff_id) if each.digest != blob.digest]
        kept = [blob, *others][:_KEPT]
        self._table.put(diff_id, {"blobs": [each.to_document() for each in kept]})

    def known(self, diff_id: str) -> tuple[Descriptor, ...]:
        """The newest first; none for a layer that was never seen compressed."""
        row = self._table.get(diff_id) or {"blobs": []}
        return tuple(Descriptor.parse(each) for each in row["blobs"])
