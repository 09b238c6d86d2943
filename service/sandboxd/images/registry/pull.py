"""An image from a registry, as a source of images like any other.

Reference, manifest (digest-checked), config, then all layers that are not there yet, each in a
worker process of its own: bytes are verified, decompressed, verified again and unpacked as they
come, and nothing is written twice. What was fetched is published with one syncfs(2) for all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandboxd.errors import BadRequest, NotFound, Unavailable
from sandboxd.images.compressed import CompressedLayers
from sandboxd.images.documents import diff_ids, parsed_object
from sandboxd.images.reference import Reference
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.crew import Crew
from sandboxd.images.registry.flights import Flights
from sandboxd.images.registry.jobs import Job, Source
from sandboxd.images.registry.manifests import Descriptor, Manifest
from sandboxd.images.registry.platforms import Platform
from sandboxd.images.registry.resolution import Resolved, read_config, resolve
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.images.sources import Arrival, Workbench
from sandboxd.images.unpack import Unpacked

_ORIGIN: Final = "containerd.io/distribution.source."
"""Prefix of the annotation that says in which repository of a registry a blob is."""
_LOOK: Final = 0.1


@dataclass(slots=True)
class RegistrySource:
    """One pull. `platform` is None for this machine's own. When `cancelled` is set, the pull ends
    with Unavailable."""

    reference: Reference
    settings: RegistrySettings
    credentials: Credentials | None
    platform: Platform | None
    crew: Crew
    flights: Flights
    cancelled: threading.Event
    resolved: Resolved | None = None
    """What the reference turned out to name."""

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        with closing(RegistryClient(self.reference, self.settings, self.credentials)) as client:
            yield self._arrival(client, bench)

    def _arrival(self, client: RegistryClient, bench: Workbench) -> Arrival:
        reference = self.reference
        which = reference.digest or reference.tag or "latest"
        with client.abortable(self.cancelled):
            self.resolved = resolve(client, which, self.platform or Platform.of_machine())
            digest, manifest = self.resolved
            bench.progress({"status": f"Pulling from {reference.path}", "id": which})
            config = self._config(client, bench, manifest)
        wanted = self._wanted(config, manifest)
        self._fetch_missing(client, bench, wanted)
        self._remember(bench, wanted)
        bench.progress({"status": f"Digest: {digest}"})
        names = () if reference.digest else (reference,)
        return Arrival(config, tuple(wanted_ids(config)), names, (f"{reference.name}@{digest}",))

    def _config(self, client: RegistryClient, bench: Workbench, manifest: Manifest) -> bytes:
        digest = manifest.config.digest
        try:
            with bench.store.blobs.open(digest) as blob:
                return blob.read()
        except NotFound:
            return read_config(client, manifest, self.settings.network)

    def _wanted(self, config: bytes, manifest: Manifest) -> dict[str, Descriptor]:
        """The blob of each layer, by diffID. Raises BadRequest, NotFound for another platform."""
        document = parsed_object(config, "image config")
        expected, layers = diff_ids(document), manifest.layers
        if len(expected) != len(layers):
            why = f"{len(layers)} layers, but its config names {len(expected)}"
            raise BadRequest("image manifest", why)
        actual = Platform.from_document(document)
        if self.platform is not None and self.platform.rank(actual) is None:
            what = f"image with reference {self.reference} was found"
            why = f"but its platform ({actual}) does not match the specified ({self.platform})"
            raise NotFound(f"{what} {why}")
        if actual.os not in ("", "linux"):
            raise BadRequest(
                f'image operating system "{actual.os}" cannot be used on this platform'
            )
        return dict(zip(expected, layers, strict=True))

    def _fetch_missing(
        self, client: RegistryClient, bench: Workbench, wanted: dict[str, Descriptor]
    ) -> None:
        missing = []
        for diff_id, blob in wanted.items():
            is_there = bench.has(diff_id)
            missing += [] if is_there else [diff_id]
            self._tell(bench, blob, "Already exists" if is_there else "Pulling fs layer")
        while missing:
            if mine := self.flights.claim(missing):
                try:
                    # One that landed between the look and the claim is there by now.
                    self._fetch(client, bench, {each: wanted[each] for each in mine})
                finally:
                    self.flights.land(mine)
            else:
                self.flights.wait(missing, _LOOK)
            if self.cancelled.is_set():
                raise Unavailable("pull", "whoever asked for it went away")
            missing = [each for each in missing if not bench.has(each)]

    def _fetch(
        self, client: RegistryClient, bench: Workbench, wanted: dict[str, Descriptor]
    ) -> None:
        source = Source(self.reference, self.settings, self.credentials, client.authorizations)
        jobs = [
            Job(
                source,
                blob,
                diff_id,
                str(bench.fresh_directory("layer")),
                bench.idmap,
                bench.limits,
            )
            for diff_id, blob in wanted.items()
            if not bench.has(diff_id)
        ]

        def on_bytes(job: Job, count: int) -> None:
            detail = {"current": count, "total": job.blob.size}
            self._tell(bench, job.blob, "Downloading", detail)

        def on_done(job: Job, place: str, metadata: dict[str, Any]) -> None:
            tree = Path(job.staged, place, "tree")
            bench.unpacked[job.diff_id] = Unpacked(job.diff_id, tree, metadata)
            self._tell(bench, job.blob, "Download complete")

        self.crew.fetch(jobs, on_bytes, on_done, self.cancelled)
        bench.publish_layers([job.diff_id for job in jobs])
        for job in jobs:
            self._tell(bench, job.blob, "Pull complete")

    def _remember(self, bench: Workbench, wanted: dict[str, Descriptor]) -> None:
        compressed = CompressedLayers(bench.store)
        origin = {f"{_ORIGIN}{self.reference.domain}": self.reference.path}
        for diff_id, blob in wanted.items():
            if all(known.digest != blob.digest for known in compressed.known(diff_id)):
                annotations = {**blob.annotations, **origin}
                compressed.record(diff_id, blob._replace(annotations=annotations))

    def _tell(
        self, bench: Workbench, blob: Descriptor, status: str, detail: dict[str, int] | None = None
    ) -> None:
        short = blob.digest.removeprefix("sha256:")[:12]
        bench.progress({"status": status, "progressDetail": detail or {}, "id": short})


def wanted_ids(config: bytes) -> Sequence[str]:
    return diff_ids(parsed_object(config, "image config"))
