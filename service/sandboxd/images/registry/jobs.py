"""What a pull says to its worker processes, and they to it: one JSON object on each line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import sandboxd.errors
from sandboxd.errors import RegistryError, SandboxError
from sandboxd.images.reference import Reference
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import Descriptor
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.images.tar import Limits
from sandboxd.linux.idmap import IdMap

DIFFERENT: Final = "{} has the diffID {}, the image's config says {}"


class Source(NamedTuple):
    """Where the layers of one pull come from, and who asks."""

    reference: Reference
    settings: RegistrySettings
    credentials: Credentials | None
    authorizations: list[str | None]
    """Headers that the registry has accepted already."""

    def to_wire(self) -> dict[str, Any]:
        return {
            "reference": str(self.reference),
            "settings": self.settings.document,
            "credentials": self.credentials,
            "authorizations": self.authorizations,
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Source:
        credentials = wire["credentials"]
        return cls(
            Reference.parse(wire["reference"]),
            RegistrySettings(wire["settings"]),
            None if credentials is None else Credentials(*credentials),
            wire["authorizations"],
        )


class Job(NamedTuple):
    """One layer: its blob, what it must be uncompressed, and an empty directory for it."""

    source: Source
    blob: Descriptor
    diff_id: str
    staged: str
    idmap: IdMap
    limits: Limits

    def to_line(self) -> bytes:
        idmap = self.idmap
        return _line(
            {
                "source": self.source.to_wire(),
                "blob": self.blob.to_document(),
                "diff_id": self.diff_id,
                "staged": self.staged,
                "idmap": [idmap.kind, idmap.uids, idmap.gids],
                "limits": asdict(self.limits),
            }
        )

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        wire = json.loads(line)
        kind, uids, gids = wire["idmap"]
        extents = [tuple(tuple(extent) for extent in ids) for ids in (uids, gids)]
        return cls(
            Source.from_wire(wire["source"]),
            Descriptor.parse(wire["blob"]),
            wire["diff_id"],
            wire["staged"],
            IdMap(kind, *extents),
            Limits(**wire["limits"]),
        )


def bytes_line(count: int) -> bytes:
    """So many bytes of the blob have come."""
    return _line({"bytes": count})


def done_line(place: str, metadata: dict[str, Any]) -> bytes:
    """The layer is unpacked in `place` of its directory, and all digests are right."""
    return _line({"done": place, "metadata": metadata})


def error_line(error: SandboxError) -> bytes:
    return _line({"error": error.to_wire()["sandbox"]})


def error_from(parts: dict[str, str]) -> SandboxError:
    """The error that a worker has met, in its own class."""
    kind = getattr(sandboxd.errors, parts["type"], RegistryError)
    error: SandboxError = kind(parts["what"], parts["why"], parts["mend"])
    return error


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
