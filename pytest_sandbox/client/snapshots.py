"""The client's calls about snapshots: built from recipes, claimed, listed, sent and fetched."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_sandbox.client.pulls import registry_headers, with_image
from pytest_sandbox.client.snapshot import Claim, Recipe, Snapshot
from pytest_sandbox.client.targets import Query, path_part

if TYPE_CHECKING:
    from pytest_sandbox.client.pulls import Credentials
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.transport import Request, Transport


class SnapshotSent(NamedTuple):
    """What a push did: the whole reference, the manifest's digest, how many bytes were sent, and
    whether a snapshot was there already, which stays."""

    reference: str
    digest: str
    size: int
    existed: bool


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)


class SnapshotCalls:
    """A part of `Client`."""

    snapshot_cache: str | None = None
    """A repository in a registry, `[HOST/]NAME`, where snapshots are looked for before they are
    built. What goes wrong with it is a warning; the build goes on."""
    snapshot_cache_push: bool = False
    """Store there what is built here."""
    on_cache_failure: Callable[[str], None] = staticmethod(_warn)
    """Told in one line what went wrong with the cache."""

    if TYPE_CHECKING:
        _transport: Transport

        def call(
            self, method: str, path: str, query: Query | None = None, body: object = None,
            *, needs_lease: bool = False,
        ) -> Any: ...  # fmt: skip

        def request(
            self, method: str, path: str, query: Query | None = None, body: object = None,
            *, needs_lease: bool = False,
        ) -> Request: ...  # fmt: skip

    def snapshot(self, recipe: Recipe) -> Snapshot:
        """The snapshot that the recipe fills: fetched from the cache if there is one, or built now
        if this machine has none, once for all who ask at the same time. BadRequest with exit code
        and output when a step fails."""
        body = recipe.to_wire()
        client = cast("Client", self)
        wire = with_image(client, recipe.image, lambda: self._with_cache("/sandbox/recipes", body))
        return Snapshot.from_wire(wire)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots of this service."""
        return [Snapshot.from_wire(wire) for wire in self.call("GET", "/sandbox/snapshots")]

    def snapshot_inspect(self, key: str) -> Snapshot:
        """The snapshot with this key. Raises NoSuchSnapshot."""
        return Snapshot.from_wire(self.call("GET", f"/sandbox/snapshots/{path_part(key, ':')}"))

    def snapshot_remove(self, key: str) -> None:
        """Remove a snapshot. Conflict while a volume starts from it."""
        self.call("DELETE", f"/sandbox/snapshots/{path_part(key, ':')}")

    def snapshot_push(
        self, key: str, reference: str, *, credentials: Credentials | None = None
    ) -> SnapshotSent:
        """Store a snapshot in a registry as an OCI artifact, under its key or the reference's tag.

        `key` may be the unique beginning of one; credentials as in `pull`. Raises NoSuchSnapshot,
        Forbidden, RegistryError.
        """
        body = {"Key": key, "Reference": reference}
        wire = self._to_registry("push", reference, body, credentials)
        return SnapshotSent(wire["Reference"], wire["Digest"], wire["Size"], wire["Existed"])

    def snapshot_pull(
        self,
        reference: str,
        key: str | None = None,
        *,
        credentials: Credentials | None = None,
    ) -> Snapshot:
        """Fetch a snapshot from a registry, by the reference's tag or by its key, and verify it.

        Raises NoSuchSnapshot where the registry has none, BadRequest for something else than a
        snapshot, Forbidden, RegistryError.
        """
        body = {"Key": key, "Reference": reference}
        return Snapshot.from_wire(self._to_registry("pull", reference, body, credentials))

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim]:
        """The snapshot under `key`, or the right to build it from this side::

            with c.claim(key) as claim:
                if claim.snapshot is None:
                    ...  # fill a volume
                    claim.seal(volume)
            snapshot = claim.snapshot

        Waits while somebody else builds it, and looks into the cache if there is one. The claim
        belongs to this client's lease.
        """
        target = f"/sandbox/snapshots/{path_part(key, ':')}/claim"
        answer = self._with_cache(target, needs_lease=True)
        found = answer["Snapshot"] if answer["State"] == "ready" else None
        claim = Claim(self._sealed, key, Snapshot.from_wire(found) if found else None)
        try:
            yield claim
        finally:
            if claim.snapshot is None:
                self._abandon(target)

    def _sealed(self, key: str, body: dict[str, Any]) -> Snapshot:
        target = f"/sandbox/snapshots/{path_part(key, ':')}/seal"
        return Snapshot.from_wire(self._with_cache(target, body, needs_lease=True))

    def _with_cache(self, target: str, body: object = None, *, needs_lease: bool = False) -> Any:
        """A POST that makes use of the cache, if there is one; the decoded answer."""
        cache = self.snapshot_cache
        if cache is None:
            return self.call("POST", target, body=body, needs_lease=needs_lease)
        query = {"cache": cache, "push": self.snapshot_cache_push}
        request = self.request("POST", target, query, body, needs_lease=needs_lease)
        answer = self._sent(request, registry_headers(cache))
        if warning := answer.get("Cache", {}).get("Warning"):
            self.on_cache_failure(warning)
        return answer

    def _to_registry(
        self, verb: str, reference: str, body: object, credentials: Credentials | None
    ) -> Any:
        request = self.request("POST", f"/sandbox/snapshots/{verb}", body=body)
        return self._sent(request, registry_headers(reference, credentials))

    def _sent(self, request: Request, headers: dict[str, str]) -> Any:
        whole = request._replace(headers={**request.headers, **headers})
        return self._transport.request(whole).json()

    def _abandon(self, claim: str) -> None:
        from pytest_sandbox.errors import SandboxError

        try:
            self.call("DELETE", claim, needs_lease=True)
        except SandboxError:
            pass  # it went with its lease or with the service, and whoever waits has it
