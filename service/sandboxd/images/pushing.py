"""An image into a registry: its layers compressed and sent side by side, the manifest last.

What the registry has is not sent; what another of its repositories has is mounted from there. An
image that was pulled and whose blobs are all known there keeps its manifest, digest and
annotations included; else a manifest is written for the blobs that are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sandboxd.errors import BadRequest, NotFound, Unavailable
from sandboxd.images.compress import DOCKER_GZIP, GZIP, ZSTD, compressed_layer
from sandboxd.images.compressed import CompressedLayers
from sandboxd.images.image import Image
from sandboxd.images.pulled import PulledManifests
from sandboxd.images.reference import Reference
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)
from sandboxd.images.registry.platforms import Platform
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.images.registry.upload import Uploader
from sandboxd.images.saving import encoded, refuse_host
from sandboxd.images.sources import Progress
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store

ORIGIN: Final = "containerd.io/distribution.source."
"""Prefix of the annotation that says in which repository of a registry a blob is."""
_WORKERS: Final = 4
_TELL_EVERY: Final = 0.1
_CANDIDATES: Final = 4


class Pushed(NamedTuple):
    """What a tag names in the registry now: the manifest's digest and its size in bytes."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class PushOptions:
    """`compression` is gzip or zstd; `kind` is oci, docker, or empty for what the image came as."""

    compression: str = "gzip"
    kind: str = ""

    def check(self) -> None:
        """Raises BadRequest."""
        if self.compression not in ("gzip", "zstd"):
            raise BadRequest(f"compression {self.compression!r}", "gzip and zstd are known")
        if self.kind not in ("", "oci", "docker"):
            raise BadRequest(f"format {self.kind!r}", "oci and docker are known")
        if self.kind == "docker" and self.compression == "zstd":
            raise BadRequest("format docker", "its layers are gzip only", "use the format oci")


@dataclass(slots=True)
class Pusher:
    """Pushes images to one repository. Blocks; `cancelled` ends it with Unavailable."""

    store: Store
    idmap: IdMap
    reference: Reference
    settings: RegistrySettings
    credentials: Credentials | None
    progress: Progress
    options: PushOptions = field(default_factory=PushOptions)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _authorizations: Sequence[str | None] = ()
    _spare: list[RegistryClient] = field(default_factory=list)
    _also_pull: tuple[str, ...] = ()

    def push(self, image: Image, tag: str) -> Pushed:
        """Raises Forbidden, RegistryError, NoSpace; BadRequest for the image `host`."""
        with self._clients():
            manifest = self._content(image)
            return self._tagged(manifest, tag)

    def push_index(self, images: Sequence[Image], tag: str) -> Pushed:
        """Push several images, each for another platform, and an index of them as `tag`."""
        with self._clients():
            entries = []
            for image in images:
                manifest = self._content(image)
                self._put(manifest, manifest.digest)
                platform = Platform.from_document(image.config)
                entries.append(_described(manifest)._replace(platform=platform))
            known = {entry.platform for entry in entries}
            if len(known) != len(entries):
                raise BadRequest("image index", "two of the images are for the same platform")
            document = {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [entry.to_document() for entry in entries],
            }
            return self._tagged(Manifest.parse(encoded(document)), tag)

    def _tagged(self, manifest: Manifest, tag: str) -> Pushed:
        self._put(manifest, tag)
        pushed = Pushed(manifest.digest, len(manifest.raw), manifest.media_type)
        self.progress({"status": f"{tag}: digest: {pushed.digest} size: {pushed.size}"})
        aux = {"Tag": tag, "Digest": pushed.digest, "Size": pushed.size}
        self.progress({"progressDetail": {}, "aux": aux})
        return pushed

    def _put(self, manifest: Manifest, which: str) -> None:
        with self._client() as client:
            Uploader(client).put_manifest(manifest, which)

    def _content(self, image: Image) -> Manifest:
        """The image's blobs are in the repository; the manifest that names them."""
        refuse_host("push", image)
        pulled = PulledManifests(self.store).of(image.id)
        came_as = dict(zip(image.layers, pulled.layers, strict=False)) if pulled else {}
        with self.store.pin(image.id, *image.layers):
            with ThreadPoolExecutor(_WORKERS, "push") as workers:
                sent = [
                    workers.submit(self._layer, diff_id, came_as.get(diff_id))
                    for diff_id in dict.fromkeys(image.layers)
                ]
                try:
                    blobs = {
                        diff_id: future.result()
                        for diff_id, future in zip(dict.fromkeys(image.layers), sent, strict=True)
                    }
                except BaseException:
                    self.cancelled.set()
                    raise
            size = self._config(image)
        layers = [blobs[diff_id] for diff_id in image.layers]
        if pulled is not None and self._is_as_pulled(pulled, layers):
            return pulled
        return self._composed(image, size, layers, pulled)

    def _is_as_pulled(self, pulled: Manifest, layers: Sequence[Descriptor]) -> bool:
        same = [blob.digest for blob in pulled.layers] == [blob.digest for blob in layers]
        wanted = {"oci": OCI_MANIFEST, "docker": DOCKER_MANIFEST}.get(self.options.kind)
        return same and wanted in (None, pulled.media_type)

    def _composed(
        self, image: Image, size: int, layers: Sequence[Descriptor], pulled: Manifest | None
    ) -> Manifest:
        came_as_docker = pulled is not None and pulled.media_type == DOCKER_MANIFEST
        docker = self.options.kind == "docker" or (came_as_docker and not self.options.kind)
        docker = docker and all(_is_gzip(blob) for blob in layers)
        config = Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, image.id, size)
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": config.to_document(),
            "layers": [_layer_of(blob, docker).to_document() for blob in layers],
        }
        if pulled is not None and pulled.annotations and not docker:
            document["annotations"] = dict(pulled.annotations)
        return Manifest.parse(encoded(document))

    def _config(self, image: Image) -> int:
        size = self.store.blobs.stat(image.id).size
        with self._client() as client:
            uploader = Uploader(client)
            if not uploader.has(image.id, size):
                with self.store.blobs.open(image.id) as file:
                    uploader.send(Descriptor("", image.id, size), file, self._check)
        return size

    def _layer(self, diff_id: str, came_as: Descriptor | None) -> Descriptor:
        """One layer's blob in the repository, whichever of its compressed forms it is."""
        self._check()
        short = diff_id.removeprefix("sha256:")[:12]
        self.progress({"status": "Preparing", "progressDetail": {}, "id": short})
        with self._client() as client:
            uploader = Uploader(client)
            candidates = self._candidates(diff_id, came_as)
            for blob in candidates:
                if uploader.has(blob.digest, blob.size):
                    return self._found(diff_id, blob, short, "Layer already exists")
            for blob in candidates:
                repositories = [path for path in _repositories(blob, self.reference) if path]
                if repositories and (path := uploader.mount(blob.digest, repositories)):
                    return self._found(diff_id, blob, short, f"Mounted from {path}")
            return self._sent(uploader, diff_id, short)

    def _candidates(self, diff_id: str, came_as: Descriptor | None) -> Sequence[Descriptor]:
        known = CompressedLayers(self.store).known(diff_id)
        by_digest = {blob.digest: blob for blob in known}
        first = [by_digest.get(came_as.digest, came_as)] if came_as else []
        wanted = [blob for blob in known if _is_kind(blob, self.options.compression)]
        return list({blob.digest: blob for blob in (*first, *wanted)}.values())[:_CANDIDATES]

    def _sent(self, uploader: Uploader, diff_id: str, short: str) -> Descriptor:
        self.progress({"status": "Compressing", "progressDetail": {}, "id": short})
        blob = compressed_layer(self.store, self.idmap, diff_id, self.options.compression, pin=True)
        try:
            if uploader.has(blob.digest, blob.size):
                return self._found(diff_id, blob, short, "Layer already exists")
            with self.store.blobs.open(blob.digest) as file:
                uploader.send(blob, file, self._teller(short, blob.size))
        finally:
            self.store.release_pin(blob.digest)
        return self._found(diff_id, blob, short, "Pushed")

    def _found(self, diff_id: str, blob: Descriptor, short: str, status: str) -> Descriptor:
        """Remember where the blob is, for the next push to another repository."""
        self.progress({"status": status, "progressDetail": {}, "id": short})
        annotations = {**blob.annotations, f"{ORIGIN}{self.reference.domain}": self.reference.path}
        CompressedLayers(self.store).record(diff_id, blob._replace(annotations=annotations))
        return blob

    def _teller(self, short: str, size: int) -> Callable[[int], None]:
        last = 0.0

        def tell(sent: int) -> None:
            nonlocal last
            self._check()
            now = time.monotonic()
            if now - last >= _TELL_EVERY or sent == size:
                last = now
                detail = {"current": sent, "total": size}
                self.progress({"status": "Pushing", "progressDetail": detail, "id": short})

        return tell

    def _check(self, _: int = 0) -> None:
        if self.cancelled.is_set():
            raise Unavailable("push", "it was broken off")

    @contextmanager
    def _clients(self) -> Iterator[None]:
        """Clients are used again, each by one thread at a time, and closed at the end."""
        try:
            yield
        finally:
            for client in self._spare:
                client.close()
            self._spare.clear()

    @contextmanager
    def _client(self) -> Iterator[RegistryClient]:
        try:
            client = self._spare.pop()
        except IndexError:
            client = self._new_client()
        try:
            yield client
        except BaseException:
            client.close()
            raise
        self._authorizations = client.authorizations
        self._spare.append(client)

    def _new_client(self) -> RegistryClient:
        client = RegistryClient(
            self.reference, self.settings, self.credentials, push=True, also_pull=self._also_pull
        )
        client.adopt(self._authorizations)
        return client

    def may_mount_from(self, images: Sequence[Image]) -> None:
        """Ask for tokens that allow mounting from where the images' layers are known to be."""
        compressed = CompressedLayers(self.store)
        found = {
            path
            for image in images
            for diff_id in image.layers
            for blob in compressed.known(diff_id)
            for path in _repositories(blob, self.reference)
        }
        self._also_pull = tuple(sorted(found))[:_CANDIDATES]


def _repositories(blob: Descriptor, reference: Reference) -> Sequence[str]:
    """Other repositories of the same registry that are known to have the blob."""
    path = blob.annotations.get(f"{ORIGIN}{reference.domain}", "")
    return [path] if path and path != reference.path else []


def _described(manifest: Manifest) -> Descriptor:
    return Descriptor(manifest.media_type, manifest.digest, len(manifest.raw))


def _layer_of(blob: Descriptor, docker: bool) -> Descriptor:
    """The descriptor in a manifest: where the blob was seen is nobody's business."""
    kept = {key: value for key, value in blob.annotations.items() if not key.startswith(ORIGIN)}
    media_type = blob.media_type
    if docker:
        media_type, kept = DOCKER_GZIP, {}
    elif media_type == DOCKER_GZIP:
        media_type = GZIP
    return blob._replace(media_type=media_type, annotations=kept)


def _is_gzip(blob: Descriptor) -> bool:
    return blob.media_type in (GZIP, DOCKER_GZIP)


def _is_kind(blob: Descriptor, compression: str) -> bool:
    return blob.media_type == ZSTD if compression == "zstd" else _is_gzip(blob)


def pushed_names(images: Sequence[Image], reference: Reference) -> Sequence[tuple[Image, str]]:
    """The images and tags that a push means: the one that is named, else all of the repository.

    Raises NotFound in Docker's words where there is none.
    """
    prefix = f"{reference.name}:"
    tags = [
        (image, tag.removeprefix(prefix))
        for image in images
        for tag in image.tags
        if tag.startswith(prefix)
    ]
    wanted = [pair for pair in tags if not reference.tag or pair[1] == reference.tag]
    if not wanted:
        what = f"An image does not exist locally with the tag: {reference}"
        raise NotFound(what, mend=f"sandboxctl image tag IMAGE {reference}")
    return wanted
