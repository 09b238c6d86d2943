"""A new image from an old one: one more layer, or none, another config, a step of history."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sandboxd.images.image import Image
from sandboxd.images.platform import architecture
from sandboxd.images.reference import Reference
from sandboxd.images.sources import Arrival, Workbench

_FIELDS: Final = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
    "ArgsEscaped",
)
"""What an image's config says about containers: image-spec, config.md. A container's own hostname
and streams are not part of it."""
_OF_ONE_BUILD: Final = ("container", "container_config", "parent", "docker_version", "id")


@dataclass(frozen=True, slots=True)
class Committed:
    """An image source; `layer` is a published layer's diffID. `moment` is its time of creation, in
    seconds since 1970."""

    parent: Image
    layer: str | None
    config: Mapping[str, Any]
    created_by: str
    moment: float
    author: str = ""
    comment: str = ""
    names: tuple[Reference, ...] = field(default=())

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        layers = (*self.parent.layers, *((self.layer,) if self.layer else ()))
        for layer in layers:
            bench.has(layer)
        on_host = self.parent.is_host or self.parent.on_host
        yield Arrival(self._document(layers), layers, self.names, on_host=on_host)

    def _document(self, layers: tuple[str, ...]) -> bytes:
        created = datetime.fromtimestamp(self.moment, UTC).isoformat().replace("+00:00", "Z")
        document = copy.deepcopy(self.parent.config)
        for key in _OF_ONE_BUILD:
            document.pop(key, None)
        step: dict[str, Any] = {"created": created, "created_by": self.created_by}
        if self.author:
            step["author"] = document["author"] = self.author
        if self.comment:
            step["comment"] = self.comment
        if self.layer is None:
            step["empty_layer"] = True
        document["created"] = created
        document.setdefault("os", "linux")
        document.setdefault("architecture", architecture())
        document["config"] = {key: self.config[key] for key in _FIELDS if self.config.get(key)}
        document["rootfs"] = {"type": "layers", "diff_ids": list(layers)}
        document["history"] = [*(document.get("history") or []), step]
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
