"""A published layer as the archive that its diffID is the digest of."""

from __future__ import annotations

import hashlib

from sandboxd.errors import SandboxError
from sandboxd.images.layer_tar import ARCHIVE_SIZE, LayerTar, Sink, write_layer
from sandboxd.images.recipe import replay
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store


def export_layer(store: Store, idmap: IdMap, diff_id: str, sink: Sink) -> LayerTar:
    """Write the layer's archive to `sink`: the very bytes it came in, or our own where it was made
    here.

    Raises NotFound for an unknown layer, SandboxError when what was written has another digest: the
    layer's directory is damaged then, and what the sink took must be dropped.
    """
    metadata = store.layers.metadata(diff_id)
    tree, recipe = store.layers.path(diff_id), store.layers.recipe(diff_id)
    if recipe is None:
        written = write_layer(tree, metadata, sink, idmap)
    else:
        hashing = _Hashing(sink)
        try:
            replay(recipe, tree, hashing.write)
        except OSError as error:
            raise SandboxError.from_os(f"write layer {diff_id}", error) from error
        written = LayerTar(hashing.digest, hashing.size)
    if written.diff_id != diff_id:
        why = f"what is in the store gives {written.diff_id}"
        raise SandboxError(f"layer {diff_id} is damaged", why, "remove the image and get it again")
    return written


def archive_size(store: Store, idmap: IdMap, diff_id: str) -> int:
    """The bytes of the layer's archive, which a tar that contains it must say ahead of it.

    Known since the layer was made, else found out by writing it to nowhere.
    """
    known = store.layers.metadata(diff_id).get(ARCHIVE_SIZE)
    if isinstance(known, int):
        return known
    return export_layer(store, idmap, diff_id, lambda _: None).size


class _Hashing:
    def __init__(self, sink: Sink) -> None:
        self._sink, self._hash, self.size = sink, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._sink(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"
