"""Images in an archive: what `docker save` writes, and the OCI image layout.

https://github.com/moby/docker-image-spec (manifest.json) and
https://github.com/opencontainers/image-spec/blob/main/image-layout.md (index.json). Every digest
and size that the archive states is checked before anything of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sandboxd.errors import BadRequest
from sandboxd.images.compression import Decompressed
from sandboxd.images.documents import diff_ids, objects, parsed, parsed_object, strings
from sandboxd.images.platform import architecture
from sandboxd.images.reference import Reference
from sandboxd.images.sources import Arrival, Workbench
from sandboxd.images.spool import Part, Spool
from sandboxd.store.digests import Reader, hex_of

_NAMED_BY_DIGEST: Final = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_NAME_ANNOTATIONS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_ATTESTATION: Final = "vnd.docker.reference.type"
_INDEXES_MAX: Final = 100
_DESCRIPTORS_MAX: Final = 1000
_MANIFEST: Final = "image manifest"


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive, compressed or not, with any number of images."""

    stream: Reader

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        spool = Spool(Decompressed(self.stream), bench.directory, bench.limits)
        if "manifest.json" in spool:
            yield from _saved_images(spool, bench)
        elif "index.json" in spool:
            yield from _layout_images(spool, bench)
        else:
            raise BadRequest(
                "not an image archive", "neither manifest.json nor index.json is in it"
            )


def _saved_images(spool: Spool, bench: Workbench) -> Iterator[Arrival]:
    manifest = parsed(spool.part("manifest.json").read(), "manifest.json")
    if not isinstance(manifest, list) or not manifest:
        raise BadRequest("manifest.json", "it names no image")
    for image in objects({"images": manifest}, "images", "manifest.json"):
        config = _checked_by_name(spool, str(image.get("Config", "")))
        layers = [
            _checked_by_name(spool, name) for name in strings(image, "Layers", "manifest.json")
        ]
        names = [Reference.parse(name) for name in strings(image, "RepoTags", "manifest.json")]
        yield _arrival(bench, config.read(), layers, names)


def _checked_by_name(spool: Spool, name: str) -> Part:
    """A part of a saved image; where its name says its digest, that must be true."""
    part = spool.part(name)
    match = _NAMED_BY_DIGEST.fullmatch(name)
    if match and part.digest != f"sha256:{match[1]}":
        raise BadRequest("image archive", f"{name} has the digest {part.digest}")
    return part


def _arrival(
    bench: Workbench, config: bytes, layers: list[Part], names: list[Reference], digest: str = ""
) -> Arrival:
    expected = diff_ids(parsed_object(config, "image config"))
    if len(expected) != len(layers):
        why = f"{len(layers)} layers, but its config names {len(expected)}"
        raise BadRequest("image archive", why)
    for part, diff_id in zip(layers, expected, strict=True):
        if not bench.has(diff_id):
            with part.open() as stream:
                bench.unpack(stream, diff_id)
        bench.progress(
            {
                "status": "Loading layer",
                "id": diff_id.removeprefix("sha256:")[:12],
                "progressDetail": {"current": part.size, "total": part.size},
            }
        )
    digests = tuple(f"{name.name}@{digest}" for name in names) if digest else ()
    return Arrival(config, tuple(expected), tuple(names), digests)


def _layout_images(spool: Spool, bench: Workbench) -> Iterator[Arrival]:
    index = parsed_object(spool.part("index.json").read(), "index.json")
    found = 0
    for name, descriptor in _runnable(_descriptors(spool, index, "", set())):
        found += 1
        manifest = parsed_object(_blob(spool, descriptor).read(), _MANIFEST)
        if "manifests" in manifest or not isinstance(manifest.get("config"), dict):
            raise BadRequest(_MANIFEST, "it is an index, or has no config")
        config = _blob(spool, manifest["config"]).read()
        layers = [_blob(spool, each) for each in objects(manifest, "layers", _MANIFEST)]
        names = [Reference.parse(name)] if name else []
        yield _arrival(bench, config, layers, names, str(descriptor["digest"]))
    if not found:
        raise BadRequest("index.json", f"it names no image for linux/{architecture()}")


def _descriptors(
    spool: Spool, index: dict[str, Any], name: str, seen: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The image manifests of an index and of those nested in it, with the name each has.

    No index is read twice, so one that names itself is refused, and the work stays bounded by the
    archive's size.
    """
    if "layers" in index:
        raise BadRequest("index.json", "it is an index and a manifest at once")
    manifests = objects(index, "manifests", "index.json")
    if len(manifests) > _DESCRIPTORS_MAX or len(seen) > _INDEXES_MAX:
        raise BadRequest("index.json", "too many manifests or nested indexes")
    for descriptor in manifests:
        own = _name(descriptor) or name
        media, digest = str(descriptor.get("mediaType", "")), str(descriptor.get("digest", ""))
        if "index" in media or "manifest.list" in media:
            if digest in seen:
                raise BadRequest("index.json", f"index {digest} is named twice")
            seen.add(digest)
            nested = parsed_object(_blob(spool, descriptor).read(), "index.json")
            yield from _descriptors(spool, nested, own, seen)
        elif _ATTESTATION not in (descriptor.get("annotations") or {}):
            yield own, descriptor


def _name(descriptor: dict[str, Any]) -> str:
    annotations = descriptor.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise BadRequest("index.json", "annotations are not an object")
    for key in _NAME_ANNOTATIONS:
        name = annotations.get(key)
        # Some tools put a bare tag there, which names nothing.
        if isinstance(name, str) and (":" in name or "/" in name):
            return name
    return ""


def _runnable(
    found: Iterator[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifests that are for this machine, or do not say what they are for."""
    for name, descriptor in found:
        platform = descriptor.get("platform")
        if not isinstance(platform, dict) or (
            platform.get("os") == "linux" and platform.get("architecture") == architecture()
        ):
            yield name, descriptor


def _blob(spool: Spool, descriptor: dict[str, Any]) -> Part:
    """The part that a descriptor means. Raises BadRequest when its digest or size is another."""
    digest = str(descriptor.get("digest", ""))
    part = spool.part(f"blobs/sha256/{hex_of(digest)}")
    if part.digest != digest:
        raise BadRequest("image archive", f"blob {digest} has the digest {part.digest}")
    if part.size != descriptor.get("size"):
        why = f"blob {digest} has {part.size} bytes, not {descriptor.get('size')}"
        raise BadRequest("image archive", why)
    return part
