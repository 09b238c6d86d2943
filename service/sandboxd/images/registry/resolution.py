"""From a reference to the one manifest that a platform can use, and its config."""

from __future__ import annotations

from contextlib import closing
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest, NotFound, RegistryError
from sandboxd.images.documents import SIZE_MAX, parsed_object
from sandboxd.images.reference import Reference
from sandboxd.images.registry.blob_stream import BlobStream
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import CONFIG_TYPES, Descriptor, Manifest
from sandboxd.images.registry.platforms import Platform, choose
from sandboxd.images.registry.settings import Network, RegistrySettings

_DEPTH_MAX: Final = 3
_MANIFESTS_MAX: Final = 1000
_ATTESTATION: Final = "vnd.docker.reference.type"


class Resolved(NamedTuple):
    """`digest` is that of what the reference names: of the index, where it names one."""

    digest: str
    manifest: Manifest


def resolve(client: RegistryClient, which: str, platform: Platform) -> Resolved:
    """The image manifest of a tag or digest for a platform.

    Raises NotFound, in Docker's words, where an index has none for it; BadRequest for indexes that
    are nested too deep (one that names itself cannot be: it is read by its digest).
    """
    found = client.manifest(which)
    digest = found.digest
    for _ in range(_DEPTH_MAX):
        if not found.is_index:
            return Resolved(digest, found)
        found = _verified(client, _chosen(found, platform))
    raise BadRequest("image index", f"nested more than {_DEPTH_MAX} deep")


def look_up(
    reference: Reference, settings: RegistrySettings, credentials: Credentials | None
) -> tuple[Descriptor, tuple[Platform, ...]]:
    """What the reference names, as a descriptor, and the platforms that it is for."""
    with closing(RegistryClient(reference, settings, credentials)) as client:
        found = client.manifest(reference.digest or reference.tag or "latest")
        descriptor = Descriptor(found.media_type, found.digest, len(found.raw))
        if found.is_index:
            images = [each for each in found.manifests if _ATTESTATION not in each.annotations]
            platforms = [each.platform for each in images if each.platform is not None]
        else:
            config = read_config(client, found, settings.network)
            platforms = [Platform.from_document(parsed_object(config, "image config"))]
    return descriptor, tuple(platforms)


def _verified(client: RegistryClient, descriptor: Descriptor) -> Manifest:
    manifest = client.manifest(descriptor.digest)
    if len(manifest.raw) != descriptor.size:
        why = f"{descriptor.digest} has {len(manifest.raw)} bytes, not {descriptor.size}"
        raise RegistryError("image manifest", why)
    return manifest


def _chosen(index: Manifest, platform: Platform) -> Descriptor:
    offered = index.manifests
    if len(offered) > _MANIFESTS_MAX:
        raise BadRequest("image index", f"more than {_MANIFESTS_MAX} manifests")
    images = [each for each in offered if _ATTESTATION not in each.annotations]
    # A nested index says of itself what it is for only if all of its images are for that.
    at = choose(platform, [each.platform for each in images])
    if at is None:
        raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
    return images[at]


def read_config(client: RegistryClient, manifest: Manifest, network: Network) -> bytes:
    """The image's config, verified. Raises BadRequest for an artifact that is no image."""
    descriptor = manifest.config
    if descriptor.media_type not in CONFIG_TYPES:
        kind = manifest.artifact_type or descriptor.media_type or "an unknown type"
        raise BadRequest("not a container image", f"it is an artifact of {kind[:100]}")
    if descriptor.size > SIZE_MAX:
        raise BadRequest("image config", f"{descriptor.size} bytes long")
    stream = BlobStream(client, descriptor, network)
    try:
        parts = []
        while piece := stream.read(1 << 18):
            parts.append(piece)
    finally:
        stream.close()
    return b"".join(parts)
