"""Images as one archive: what `docker save` writes, and an OCI image layout at the same time.

https://github.com/moby/docker-image-spec (manifest.json) and
https://github.com/opencontainers/image-spec/blob/main/image-layout.md. Layers are not compressed,
as Docker has it; the same images give the same archive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sandboxd.errors import BadRequest, Forbidden
from sandboxd.images import tar_header
from sandboxd.images.image import Image
from sandboxd.images.layer_export import archive_size, export_layer
from sandboxd.images.layer_tar import Sink
from sandboxd.images.reference import HUB, Reference
from sandboxd.images.registry.manifests import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
)
from sandboxd.images.registry.platforms import Platform
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of, hex_of

if TYPE_CHECKING:
    from sandboxd.images.images import Images

_CONTAINERD_NAME: Final = "io.containerd.image.name"
_REF_NAME: Final = "org.opencontainers.image.ref.name"


class Saved(NamedTuple):
    """An image to save, and the names, short forms with a tag, that it is saved under."""

    image: Image
    names: tuple[str, ...]


def chosen(images: Images, names: Sequence[str]) -> Sequence[Saved]:
    """What `docker save NAMES` means: a name without a tag stands for all tags of its repository,
    an id for an image without a name.

    Raises NoSuchImage, BadRequest, Forbidden for the image `host`.
    """
    found: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        for image, tag in _meant(images, name):
            refuse_host("save", image)
            tags = found.setdefault(image.id, (image, []))[1]
            if tag and tag not in tags:
                tags.append(tag)
    return [Saved(image, tuple(tags)) for image, tags in found.values()]


def _meant(images: Images, name: str) -> Iterator[tuple[Image, str]]:
    if _is_bare(name):
        prefix = f"{Reference.parse(name).name}:"
        tagged = [(image, tag) for image in images.list() for tag in image.tags]
        of_repository = [pair for pair in tagged if pair[1].startswith(prefix)]
        if of_repository:
            yield from of_repository
            return
    image = images.get(name)
    try:
        reference = Reference.parse(name)
    except BadRequest:
        yield image, ""
        return
    is_tag = not reference.digest and reference.tagged in image.tags
    yield image, reference.tagged if is_tag else ""


def _is_bare(name: str) -> bool:
    """Whether a name has neither tag nor digest."""
    try:
        reference = Reference.parse(name)
    except BadRequest:
        return False
    return not reference.tag and not reference.digest and not name.startswith("sha256:")


class ImageSaver:
    """Writes an archive of images, which are kept from collection meanwhile."""

    def __init__(self, store: Store, idmap: IdMap, sink: Sink) -> None:
        self._store, self._idmap, self._sink = store, idmap, sink
        self._written: set[str] = set()

    def save(self, images: Sequence[Saved]) -> None:
        """Raises NotFound for what was removed meanwhile, SandboxError for a damaged layer."""
        used = {digest for each in images for digest in (each.image.id, *each.image.layers)}
        with self._store.pin(*used):
            self._save(images)

    def _save(self, images: Sequence[Saved]) -> None:
        self._document("oci-layout", {"imageLayoutVersion": "1.0.0"})
        self._directory("blobs/")
        self._directory("blobs/sha256/")
        entries: list[dict[str, Any]] = []
        descriptors: list[Descriptor] = []
        for image, names in images:
            manifest = self._image(image)
            descriptors += _named(manifest, names)
            entries.append(
                {
                    "Config": _blob_name(image.id),
                    "RepoTags": list(names) or None,
                    "Layers": [_blob_name(layer) for layer in image.layers],
                }
            )
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [each.to_document() for each in descriptors],
        }
        self._document("index.json", index)
        self._document("manifest.json", entries)
        self._sink(tar_header.END)

    def _image(self, image: Image) -> Descriptor:
        with self._store.blobs.open(image.id) as blob:
            config = blob.read()
        self._blob(image.id, config)
        layers = [self._layer(layer) for layer in image.layers]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, image.id, len(config)).to_document(),
            "layers": [each.to_document() for each in layers],
        }
        manifest = encoded(document)
        digest = digest_of(manifest)
        self._blob(digest, manifest)
        known = image.config.get("architecture")
        platform = Platform.from_document(image.config) if known else None
        return Descriptor(OCI_MANIFEST, digest, len(manifest), platform=platform)

    def _layer(self, diff_id: str) -> Descriptor:
        size = archive_size(self._store, self._idmap, diff_id)
        if diff_id not in self._written:
            self._written.add(diff_id)
            self._file(_blob_name(diff_id), size)
            export_layer(self._store, self._idmap, diff_id, self._sink)
            self._sink(tar_header.padding(size))
        return Descriptor(OCI_LAYER, diff_id, size)

    def _blob(self, digest: str, data: bytes) -> None:
        if digest not in self._written:
            self._written.add(digest)
            self._data(_blob_name(digest), data)

    def _document(self, name: str, document: Any) -> None:
        self._data(name, encoded(document))

    def _data(self, name: str, data: bytes) -> None:
        self._file(name, len(data))
        self._sink(data + tar_header.padding(len(data)))

    def _file(self, name: str, size: int) -> None:
        self._sink(tar_header.header(name.encode(), tar_header.FILE, mode=0o644, size=size))

    def _directory(self, name: str) -> None:
        self._sink(tar_header.header(name.encode(), tar_header.DIRECTORY, mode=0o755))


def encoded(document: Any) -> bytes:
    """JSON as manifests are written: compact, in the order of its keys."""
    return json.dumps(document, separators=(",", ":")).encode()


def refuse_host(action: str, image: Image) -> None:
    """Raises Forbidden for the image `host`, and for those that lie on this machine's root."""
    if image.is_host or image.on_host:
        what = f"{action} image {'host' if image.is_host else image.id[:19]}"
        why = "it is this machine's own root" if image.is_host else "it lies on this machine's root"
        mend = "make an image of files: sandboxctl image import ROOTFS.tar NAME"
        raise Forbidden(what, why, mend)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _named(manifest: Descriptor, names: tuple[str, ...]) -> Iterator[Descriptor]:
    """One descriptor for each name: containerd and podman read the whole one, umoci the tag."""
    for name in names:
        reference = Reference.parse(name)
        path = reference.path if reference.domain == HUB else ""
        full = f"{HUB}/{path}:{reference.tag}" if path else name
        yield manifest._replace(annotations={_CONTAINERD_NAME: full, _REF_NAME: reference.tag})
    if not names:
        yield manifest
