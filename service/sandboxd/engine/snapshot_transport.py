"""Snapshots to a registry and from one: `push` and `pull`, blocking, each in a thread of its own.

A pull trusts the registry in one thing only: that whoever pushed under a key had built its recipe.
Everything else is verified, before anything is published: digests of manifest, config and blobs,
the diffID of each archive and, where the id map has all owners, the digest of the content.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.engine import snapshot_artifact as artifact
from sandboxd.engine.snapshot_artifact import About, Part
from sandboxd.engine.snapshot_trees import Packed, pack, unpacked
from sandboxd.errors import (
    BadRequest,
    NoSuchImage,
    NoSuchSnapshot,
    NotFound,
    RegistryError,
    SandboxError,
)
from sandboxd.images import Reference
from sandboxd.images.documents import SIZE_MAX
from sandboxd.images.registry.blob_stream import BlobStream
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import OCI_MANIFEST, Descriptor, Manifest
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.store import Snapshot, Store, Tree
from sandboxd.store.digests import digest_of

_BLOCK: Final = 1 << 18


class Place(NamedTuple):
    """Where a snapshot lies or shall lie, and who asks; without a tag the key is the tag."""

    reference: Reference
    credentials: Credentials | None = None


class Sent(NamedTuple):
    """A push: the whole reference, the manifest's digest, and how many bytes it took.

    `existed` where a snapshot was there already, which stays."""

    reference: str
    digest: str
    size: int
    existed: bool


class Transport:
    """`settings` reads the registries' settings anew for each journey."""

    def __init__(
        self, store: Store, settings: Callable[[], RegistrySettings] = RegistrySettings.load
    ) -> None:
        self._store, self._settings = store, settings
        self._squashed = store.idmap.kind == "single"

    def push(self, key: str, place: Place) -> Sent:
        """Raises NoSuchSnapshot, Forbidden, RegistryError, BadRequest, NoSpace."""
        reference = self._tagged(place.reference, key)
        with self._store.pin(key), self._client(reference, place, push=True) as client:
            snapshot = self._store.snapshots.get(key)
            if snapshot is None:
                raise NoSuchSnapshot.named(key)
            # A tag of somebody's own choosing moves; under its key the first snapshot stays.
            if not place.reference.tag and (there := client.head_manifest(reference.tag)):
                return Sent(str(reference), there[1], 0, True)
            with self._store.staging("push") as staged:
                return self._sent(client, reference, snapshot, staged)

    def pull(self, place: Place, key: str | None = None) -> Snapshot:
        """The snapshot at a place, of `key` if that is given; one that is here is not fetched.

        Raises NoSuchSnapshot where the registry has none, Forbidden, RegistryError, BadRequest for
        something else than a snapshot or a damaged one, NoSpace. Nothing is left then.
        """
        if key is not None and (found := self._store.snapshots.get(key)):
            return found
        if key is None and not place.reference.tag and not place.reference.digest:
            why = "neither its tag nor a key says which snapshot is meant"
            raise BadRequest(f"pull {place.reference}", why, "--key KEY, or REPOSITORY:TAG")
        with self._client(place.reference, place) as client, ExitStack() as held:
            manifest = self._manifest(client, place.reference, key)
            artifact.check(manifest, str(place.reference))
            about = self._about(client, manifest)
            if key is not None and about.key != key:
                why = f"it is the snapshot {about.key}, not {key}"
                raise BadRequest(f"{place.reference}", why)
            held.enter_context(self._store.pin(about.key))
            if found := self._store.snapshots.get(about.key):
                return found
            self._refuse_squashed(about, place.reference)
            return self._received(client, manifest, about, held)

    def _tagged(self, reference: Reference, key: str) -> Reference:
        if reference.digest:
            raise BadRequest(f"push to {reference}", "a digest is no place to push to")
        if reference.tag:
            return reference
        return replace(reference, tag=artifact.tag_of(key, squashed=self._squashed))

    def _client(self, reference: Reference, place: Place, push: bool = False) -> RegistryClient:
        return RegistryClient(reference, self._settings(), place.credentials, push=push)

    # push

    def _sent(
        self, client: RegistryClient, reference: Reference, snapshot: Snapshot, staged: Path
    ) -> Sent:
        packed: list[Packed] = []
        size = 0
        for number, (layer, digest) in enumerate(zip(snapshot.layers, snapshot.trees, strict=True)):
            packed.append(pack(layer, digest, self._store.idmap, staged / str(number)))
            size += _upload(client, packed[-1].path, packed[-1].blob)
            packed[-1].path.unlink()
        about = About(
            snapshot.key,
            snapshot.spec,
            snapshot.created,
            self._squashed,
            tuple(each.part for each in packed),
        )
        raw = about.to_json()
        if len(raw) > SIZE_MAX:
            raise BadRequest(f"push {snapshot.key}", f"its config is longer than {SIZE_MAX} bytes")
        config = Descriptor(artifact.CONFIG, digest_of(raw), len(raw))
        path = staged / "config"
        path.write_bytes(raw)
        size += _upload(client, path, config)
        manifest = artifact.manifest(about, config, [each.blob for each in packed])
        client.request(
            "PUT",
            f"manifests/{reference.tag}",
            headers={"Content-Type": OCI_MANIFEST},
            body=manifest,
            expect=(200, 201, 202),
        ).close()
        return Sent(str(reference), digest_of(manifest), size + len(manifest), False)

    # pull

    def _manifest(self, client: RegistryClient, reference: Reference, key: str | None) -> Manifest:
        """By digest, tag or key; under a single-id map a squashed one will do as well."""
        wanted = [reference.digest or reference.tag]
        if key is not None and not wanted[0]:
            kinds = (False, True) if self._squashed else (False,)
            wanted = [artifact.tag_of(key, squashed=squashed) for squashed in kinds]
        for which in wanted:
            try:
                return client.manifest(which)
            except (NoSuchImage, NotFound):
                continue
        raise NoSuchSnapshot(f"No such snapshot in {reference.name}: {key or wanted[0]}")

    def _about(self, client: RegistryClient, manifest: Manifest) -> About:
        if manifest.config.size > SIZE_MAX:
            raise BadRequest("a snapshot's config", f"longer than {SIZE_MAX} bytes")
        stream = self._stream(client, manifest.config)
        try:
            raw = b"".join(iter(lambda: stream.read(_BLOCK), b""))
        finally:
            stream.close()
        return About.parse(raw)

    def _refuse_squashed(self, about: About, reference: Reference) -> None:
        if about.squashed and not self._squashed:
            why = "it was made by a user without subordinate ids, and its files' owners are lost"
            raise BadRequest(f"snapshot {reference}", why, "push it from a machine that has them")

    def _received(
        self, client: RegistryClient, manifest: Manifest, about: About, held: ExitStack
    ) -> Snapshot:
        blobs = manifest.layers
        if len(blobs) != len(about.parts):
            why = f"{len(blobs)} layers for {len(about.parts)} trees"
            raise BadRequest(f"snapshot {about.key}", why)
        staged = held.enter_context(self._store.staging("pull"))
        stack = [
            self._tree(client, part, blob, staged / str(number), held)
            for number, (part, blob) in enumerate(zip(about.parts, blobs, strict=True))
        ]
        return self._store.snapshots.adopt(about.key, stack, created=about.created, spec=about.spec)

    def _tree(
        self, client: RegistryClient, part: Part, blob: Descriptor, staged: Path, held: ExitStack
    ) -> Tree:
        """A tree that is here, or fetched and verified."""
        held.enter_context(self._store.pin(part.digest))
        if self._store.snapshots.has_tree(part.digest):
            return Tree(part.digest, part.size, part.files, None)
        staged.mkdir(mode=0o700)
        stream = self._stream(client, blob)
        try:
            tree, content = unpacked(stream, part, self._store.idmap, staged)
            if stream.read(1):
                raise RegistryError(f"blob {blob.digest}", "data after its archive's end")
        except OSError as error:
            raise SandboxError.from_os(f"fetch snapshot {part.digest}", error) from error
        finally:
            stream.close()
        held.enter_context(self._store.pin(content.digest))
        return Tree(content.digest, content.size, content.files, tree)

    def _stream(self, client: RegistryClient, blob: Descriptor) -> BlobStream:
        return BlobStream(client, blob, self._settings().network)


def _upload(client: RegistryClient, path: Path, blob: Descriptor) -> int:
    """Send a blob unless the repository has it; how many bytes that took."""
    with client.request("HEAD", f"blobs/{blob.digest}", expect=(200, 404)) as answer:
        if answer.status == 200:
            return 0
    with client.request("POST", "blobs/uploads/", body=b"", expect=(202,)) as answer:
        location = answer.headers.get("location", "")
    if not location:
        raise RegistryError(f"registry {client.reference.domain}", "an upload without a Location")
    joined = f"{location}{'&' if '?' in location else '?'}digest={blob.digest}"
    with open(path, "rb") as file:
        headers = {"Content-Type": "application/octet-stream"}
        client.request(
            "PUT",
            joined,
            headers=headers,
            body=file,
            size=os.fstat(file.fileno()).st_size,
            expect=(201,),
        ).close()
    return blob.size
