"""A root file system as an archive: one layer, and a config that says little (`docker import`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sandboxd.errors import BadRequest
from sandboxd.images.changes import apply_changes
from sandboxd.images.platform import architecture
from sandboxd.images.reference import Reference
from sandboxd.images.sources import Arrival, Workbench
from sandboxd.store.digests import Reader


@dataclass(frozen=True, slots=True)
class RootfsArchive:
    """`changes` are Dockerfile instructions for the config, `message` its comment."""

    stream: Reader
    reference: Reference | None
    message: str = ""
    changes: Sequence[str] = ()

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        config = apply_changes({}, list(self.changes))
        bench.progress({"status": "Importing"})
        layer = bench.unpack(self.stream)
        if not layer.metadata["entries"]:
            raise BadRequest("import", "the archive is empty")
        names = () if self.reference is None else (self.reference,)
        yield Arrival(self._document(config, layer.diff_id), (layer.diff_id,), names)

    def _document(self, config: dict[str, object], diff_id: str) -> bytes:
        """https://github.com/opencontainers/image-spec/blob/main/config.md"""
        comment = self.message or "Imported from -"
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        document = {
            "architecture": architecture(),
            "comment": comment,
            "config": config,
            "created": created,
            "history": [{"created": created, "comment": comment}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        return json.dumps(document, separators=(",", ":")).encode()
