"""What a snapshot is in a registry: an OCI artifact of a config and one layer for each tree.

```
manifest  artifactType application/vnd.sandbox.snapshot.v1      tag: the key's 64 hex digits
config    key, spec, when it was made, and for each tree, topmost first: digest of its content,
          diffID of its archive, size, files, holes, what the archive could not take along
layers    the trees as archives, whiteouts and owners as in an image's layer, in the same order
```
Trees that snapshots share are one blob in the registry. Where a single-id map squashed all owners
the tag ends in `-single`: such a snapshot is of no use to a machine that has the owners.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from sandboxd.errors import BadRequest
from sandboxd.images.documents import objects, parsed_object, strings
from sandboxd.images.registry.manifests import OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest
from sandboxd.store.digests import hex_of

ARTIFACT: Final = "application/vnd.sandbox.snapshot.v1"
CONFIG: Final = "application/vnd.sandbox.snapshot.config.v1+json"
LAYER: Final = f"{OCI_LAYER}+gzip"
_WHAT: Final = "snapshot"
_COUNT_MAX: Final = 1 << 53
_TREES_MAX: Final = 100

Holes = Mapping[str, Sequence[tuple[int, int]]]
"""Path in the tree to (offset, length) of a file's holes, in bytes."""


class Part(NamedTuple):
    """One tree: digest of its content, diffID of its archive, bytes in its files, entries."""

    digest: str
    diff_id: str
    size: int
    files: int
    holes: Holes
    left_out: tuple[str, ...]
    """Sockets, which no archive can hold."""


class About(NamedTuple):
    """The config: `created` in seconds since 1970, `squashed` where all owners became one."""

    key: str
    spec: dict[str, Any]
    created: float
    squashed: bool
    parts: tuple[Part, ...]

    def to_json(self) -> bytes:
        document = {
            "Key": self.key,
            "Spec": self.spec,
            "Created": self.created,
            "Squashed": self.squashed,
            "Trees": [
                {
                    "Digest": part.digest,
                    "DiffID": part.diff_id,
                    "Size": part.size,
                    "Files": part.files,
                    "Holes": dict(part.holes),
                    "LeftOut": list(part.left_out),
                }
                for part in self.parts
            ],
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises BadRequest for what no `to_json` wrote."""
        document = parsed_object(raw, _WHAT)
        key, spec, created = (document.get(name) for name in ("Key", "Spec", "Created"))
        hex_of(key if isinstance(key, str) else "")
        if not isinstance(spec, dict) or not isinstance(created, int | float):
            raise BadRequest(_WHAT, "its config has no Spec or no Created")
        parts = tuple(_part(each) for each in objects(document, "Trees", _WHAT))
        if not 0 < len(parts) <= _TREES_MAX:
            raise BadRequest(_WHAT, f"it consists of {len(parts)} trees")
        return cls(str(key), spec, float(created), bool(document.get("Squashed")), parts)


def manifest(about: About, config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The manifest's bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT,
        "config": config.to_document(),
        "layers": [layer.to_document() for layer in layers],
        "annotations": {"vnd.sandbox.snapshot.key": about.key},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def check(found: Manifest, name: str) -> None:
    """Raises BadRequest for a manifest of something else."""
    if found.is_index or (found.artifact_type or found.config.media_type) not in (ARTIFACT, CONFIG):
        why = "it is an image or another artifact"
        raise BadRequest(f"{name} is no snapshot", why, "sandboxctl pull, for an image")


def tag_of(key: str, *, squashed: bool) -> str:
    """The tag under which a snapshot's key is looked for."""
    return f"{hex_of(key)}-single" if squashed else hex_of(key)


def _part(document: dict[str, Any]) -> Part:
    digest, diff_id = str(document.get("Digest")), str(document.get("DiffID"))
    hex_of(digest)
    hex_of(diff_id)
    size, files = document.get("Size"), document.get("Files")
    if not (_is_count(size) and _is_count(files)):
        raise BadRequest(_WHAT, "a tree without Size or Files")
    left_out = tuple(strings(document, "LeftOut", _WHAT))
    return Part(digest, diff_id, int(size or 0), int(files or 0), _holes(document), left_out)


def _holes(document: dict[str, Any]) -> Holes:
    found = document.get("Holes") or {}
    if not isinstance(found, dict):
        raise BadRequest(_WHAT, "Holes is no object")
    return {path: [_hole(each) for each in ranges] for path, ranges in found.items()}


def _hole(pair: Any) -> tuple[int, int]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(_is_count(each) for each in pair):
        raise BadRequest(_WHAT, "a hole that is none")
    return pair[0], pair[1]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _COUNT_MAX
