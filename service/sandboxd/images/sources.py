"""Where images come from: one small interface, implemented by each kind of source.

A source turns what it reads into arrivals on a workbench: layers unpacked in staging, a config, the
names it has for them. Whether an arrival becomes an image is decided when all of it was verified.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from sandboxd.errors import BadRequest
from sandboxd.images.applied import Applied
from sandboxd.images.reference import Reference
from sandboxd.images.tar import Limits
from sandboxd.images.unpack import Unpacked, unpack
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import Reader, digest_of, hex_of
from sandboxd.store.layers import StagedLayer

Progress = Callable[[dict[str, Any]], None]
"""Takes one progress object of the Engine API: `status`, `id`, `progressDetail`."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One verified image: its config as bytes (the image's id is their digest), its layers' diffIDs
    from the lowest up, its names, and the digests under which a registry knows it.

    `on_host` is for what this machine built itself: the layers lie on the image `host`. No archive
    can ask for it."""

    config: bytes
    layers: tuple[str, ...]
    names: tuple[Reference, ...] = ()
    digests: tuple[str, ...] = ()
    on_host: bool = False


class ImageSource(Protocol):
    """What an image archive, a root file system, and later a registry or a build, implement."""

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        """Bring the images onto the bench, one by one.

        Raises a SandboxError at the first thing that is wrong; nothing of this source is kept then.
        """
        ...


@dataclass(slots=True)
class Workbench:
    """A private directory for one source, and the layers that were unpacked there."""

    store: Store
    idmap: IdMap
    directory: Path
    held: ExitStack
    progress: Progress
    limits: Limits
    unpacked: dict[str, Unpacked] = field(default_factory=dict)

    def has(self, diff_id: str) -> bool:
        """Whether the layer needs no unpacking; it will not be collected while the bench stands."""
        self._pin(diff_id)
        return diff_id in self.unpacked or self.store.layers.has(diff_id)

    def unpack(self, stream: Reader, expected: str | None = None) -> Unpacked:
        """Unpack a layer. Raises BadRequest when its diffID is not the `expected` one."""
        staged = self.fresh_directory("layer")
        layer = unpack(stream, staged, self.idmap, self.limits)
        if expected is not None and layer.diff_id != expected:
            raise BadRequest("layer", f"its diffID is {layer.diff_id}, its config says {expected}")
        self._pin(layer.diff_id)
        self.unpacked[layer.diff_id] = layer
        return layer

    def fresh_directory(self, prefix: str) -> Path:
        """A new private directory on the bench."""
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.directory))

    def publish_tree(self, tree: Path, digest: str) -> str:
        """Publish a directory tree that comes from no archive, as a layer; returns the digest."""
        self._pin(digest)
        self.store.layers.publish(digest, tree, Applied().to_metadata())
        return digest

    def publish(self, arrival: Arrival) -> None:
        """Store what was unpacked for an arrival, and its config."""
        self.publish_layers(arrival.layers)
        self._pin(digest_of(arrival.config))
        self.store.blobs.put(BytesIO(arrival.config))

    def publish_layers(self, diff_ids: Sequence[str]) -> None:
        """Store those of the layers that were unpacked here."""
        layers = [
            StagedLayer(diff_id, layer.tree, layer.metadata, layer.recipe)
            for diff_id in diff_ids
            if (layer := self.unpacked.pop(diff_id, None)) is not None
        ]
        self.store.layers.publish_all(layers)

    def _pin(self, digest: str) -> None:
        hex_of(digest)
        self.held.enter_context(self.store.pin(digest))
