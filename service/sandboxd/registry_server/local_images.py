"""The images of the same store, served by their names as if they had been pushed.

The service may run beside this process, so what an image is called is read for every request. A
manifest is made from the image's config and its layers' compressed blobs; both are the same each
time, and so is its digest. Images that lie on this machine's own root are of use to no other
machine and are not served.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final, NamedTuple

from sandboxd.errors import BadRequest, NotFound
from sandboxd.images import Reference
from sandboxd.images.compress import GZIP, compressed_layer
from sandboxd.images.documents import diff_ids, parsed_object
from sandboxd.images.registry.manifests import OCI_CONFIG, OCI_MANIFEST, Descriptor
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of

_REMEMBERED_MAX: Final = 256
_ATTEMPTS: Final = 3


class LocalManifest(NamedTuple):
    """A manifest that was made: its digest, its bytes, and by blob the diffIDs of its layers."""

    digest: str
    raw: bytes
    layers: dict[str, str]

    media_type: str = OCI_MANIFEST


class LocalImages:
    def __init__(self, store: Store, idmap: IdMap) -> None:
        self._store, self._idmap = store, idmap
        self._mutex = threading.Lock()
        self._made: dict[str, LocalManifest] = {}

    def names(self) -> Sequence[str]:
        """The repositories that local images have a name in."""
        return sorted({reference.name for reference in self._references()})

    def tags(self, repository: str) -> Sequence[str]:
        return list(self._tagged(repository))

    def manifest(self, repository: str, which: str) -> LocalManifest | None:
        """By tag or digest; compresses layers where no blob of them is there. Blocks."""
        tagged = self._tagged(repository)
        if ":" not in which:
            return self._manifest(tagged[which]) if which in tagged else None
        for image in dict.fromkeys(tagged.values()):
            found = self._manifest(image)
            if found is not None and found.digest == which:
                return found
        return None

    def open_blob(self, repository: str, digest: str) -> BinaryIO | None:
        """The config or a layer of one of the repository's images; the caller closes it. Blocks."""
        for image in dict.fromkeys(self._tagged(repository).values()):
            if digest == image:
                return self._opened(digest)
            found = self._manifest(image)
            if found is not None and digest in found.layers:
                return self._layer(found.layers[digest], digest)
        return None

    def _references(self) -> Iterator[Reference]:
        for name, row in self._store.database.tags.all().items():
            reference = Reference.parse(name)
            # A registry's port cannot be part of a repository's name.
            if ":" not in reference.domain and self._travels(row["image"]):
                yield reference

    def _tagged(self, repository: str) -> dict[str, str]:
        """Tag to image id. `library/busybox` is `busybox`, as a mirror of Docker Hub calls it."""
        try:
            wanted = Reference.parse(repository).name
        except BadRequest:
            return {}
        tagged = {}
        for name, row in self._store.database.tags.all().items():
            repository_name, _, tag = name.rpartition(":")
            if repository_name == wanted and self._travels(row["image"]):
                tagged[tag] = row["image"]
        return tagged

    def _travels(self, image: str) -> bool:
        row = self._store.database.images.get(image)
        return row is not None and not (row.get("host") or row.get("on_host"))

    def _manifest(self, image: str) -> LocalManifest | None:
        """None where the image, or a layer of it, went meanwhile."""
        with self._mutex:
            known = self._made.get(image)
        if known is not None:
            return known
        try:
            made = self._synthesised(image)
        except NotFound:
            return None
        with self._mutex:
            while len(self._made) >= _REMEMBERED_MAX:
                self._made.pop(next(iter(self._made)))
            self._made[image] = made
        return made

    def _synthesised(self, image: str) -> LocalManifest:
        with self._store.blobs.open(image) as blob:
            raw = blob.read()
        ordered = diff_ids(parsed_object(raw, "image config"))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            made = pool.map(self._compressed, dict.fromkeys(ordered))
            layers = dict(zip(dict.fromkeys(ordered), made, strict=True))
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, image, len(raw)).to_document(),
            "layers": [layers[diff_id].to_document() for diff_id in ordered],
        }
        manifest = json.dumps(document, separators=(",", ":")).encode()
        blobs = {layer.digest: diff_id for diff_id, layer in layers.items()}
        return LocalManifest(digest_of(manifest), manifest, blobs)

    def _compressed(self, diff_id: str) -> Descriptor:
        """Under the media type of OCI manifests, whatever a registry that had it called it."""
        made = compressed_layer(self._store, self._idmap, diff_id)
        return Descriptor(GZIP, made.digest, made.size)

    def _layer(self, diff_id: str, digest: str) -> BinaryIO | None:
        """The service may collect the blob between the compressing and the opening."""
        for _ in range(_ATTEMPTS):
            try:
                made = self._compressed(diff_id)
            except NotFound:
                return None
            if made.digest != digest:
                return self._opened(digest)
            if file := self._opened(digest):
                return file
        return None

    def _opened(self, digest: str) -> BinaryIO | None:
        try:
            return self._store.blobs.open(digest)
        except NotFound:
            return None
