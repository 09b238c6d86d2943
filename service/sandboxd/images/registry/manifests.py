"""Manifests and indexes: OCI image specification 1.1, and Docker's schema 2.

https://github.com/opencontainers/image-spec/blob/main/manifest.md and image-index.md;
https://distribution.github.io/distribution/spec/manifest-v2-2/. Schema 1 is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from sandboxd.errors import BadRequest
from sandboxd.images.documents import objects, parsed_object
from sandboxd.images.registry.platforms import Platform
from sandboxd.store.digests import digest_of, hex_of

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
"""What is asked for, the most telling first."""
_INDEX_TYPES: Final = frozenset((OCI_INDEX, DOCKER_LIST))
CONFIG_TYPES: Final = frozenset((OCI_CONFIG, DOCKER_CONFIG))
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
_WHAT: Final = "image manifest"
_LAYERS_MAX: Final = 500
_SIZE_MAX: Final = 1 << 40
_ANNOTATIONS_MAX: Final = 1000


class Descriptor(NamedTuple):
    """What a manifest says of a blob or of another manifest; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""

    @classmethod
    def parse(cls, document: Any, what: str = _WHAT) -> Self:
        """Raises BadRequest for a digest that is none, a size that cannot be, and so on."""
        if not isinstance(document, dict):
            raise BadRequest(what, "a descriptor is no JSON object")
        digest, size = document.get("digest"), document.get("size")
        hex_of(digest if isinstance(digest, str) else "")
        if type(size) is not int or not 0 <= size <= _SIZE_MAX:
            raise BadRequest(what, f"size {str(size)[:40]} of {digest}")
        platform = document.get("platform")
        return cls(
            str(document.get("mediaType") or ""),
            str(digest),
            size,
            _annotations(document, what),
            Platform.from_document(platform) if isinstance(platform, dict) else None,
            str(document.get("artifactType") or ""),
        )

    def to_document(self) -> dict[str, Any]:
        """As JSON for a manifest; what is empty is left out."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.to_document()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document


class Manifest(NamedTuple):
    """A manifest or an index: the bytes that its digest is about, and what they say."""

    raw: bytes
    media_type: str
    digest: str
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes, media_type: str = "") -> Self:
        """`media_type` is what the registry calls it. Raises BadRequest for what is neither."""
        document = parsed_object(raw, _WHAT)
        own = str(document.get("mediaType") or "")
        _refuse_others(document, own or media_type)
        kind = own or media_type.partition(";")[0].strip().lower()
        if kind not in MANIFEST_TYPES:
            kind = OCI_INDEX if "manifests" in document else OCI_MANIFEST
        if (kind in _INDEX_TYPES) != ("manifests" in document):
            raise BadRequest(_WHAT, f"its content is not what its type {kind} says")
        return cls(raw, kind, digest_of(raw), document)

    @property
    def is_index(self) -> bool:
        return self.media_type in _INDEX_TYPES

    @property
    def config(self) -> Descriptor:
        """Raises BadRequest where there is none."""
        return Descriptor.parse(self.document.get("config"), f"{_WHAT}: config")

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """From the lowest up."""
        found = objects(dict(self.document), "layers", _WHAT)
        if len(found) > _LAYERS_MAX:
            raise BadRequest(_WHAT, f"more than {_LAYERS_MAX} layers")
        return tuple(Descriptor.parse(each) for each in found)

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """The manifests of an index."""
        found = objects(dict(self.document), "manifests", _WHAT)
        return tuple(Descriptor.parse(each, "image index") for each in found)

    @property
    def annotations(self) -> Mapping[str, str]:
        return _annotations(self.document, _WHAT)

    @property
    def artifact_type(self) -> str:
        return str(self.document.get("artifactType") or "")

    @property
    def subject(self) -> Descriptor | None:
        """The manifest that this one is about, if it is about one."""
        found = self.document.get("subject")
        return None if found is None else Descriptor.parse(found, f"{_WHAT}: subject")


def _refuse_others(document: Mapping[str, Any], media_type: str) -> None:
    """Schema 1, and a document that is index and manifest at once (CVE-2021-41190)."""
    if document.get("schemaVersion") == 1 or media_type.startswith(_SCHEMA_1):
        mend = "push the image again with a current docker, podman or skopeo"
        raise BadRequest(_WHAT, "schema 1, which was retired in 2019, is not supported", mend)
    if document.get("schemaVersion") != 2:
        raise BadRequest(_WHAT, f"schemaVersion {str(document.get('schemaVersion'))[:20]}")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise BadRequest(_WHAT, "it is an index and a manifest at once")


def _annotations(document: Mapping[str, Any], what: str) -> Mapping[str, str]:
    found = document.get("annotations") or {}
    if not isinstance(found, dict) or len(found) > _ANNOTATIONS_MAX:
        raise BadRequest(what, "annotations are no object of reasonable size")
    if not all(isinstance(value, str) for value in found.values()):
        raise BadRequest(what, "an annotation is no string")
    return found
