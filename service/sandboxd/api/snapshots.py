"""Snapshots and the recipes that fill them, under /sandbox/."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd.api.bodies import RECIPE, SEAL, SNAPSHOT_PULL, SNAPSHOT_PUSH
from sandboxd.api.call import EXTENSION_BODY_LIMIT, Call
from sandboxd.api.extension import base64_bytes
from sandboxd.api.registries import credentials_of
from sandboxd.api.replies import empty_reply, json_reply
from sandboxd.errors import BadRequest, NoSuchSnapshot

if TYPE_CHECKING:
    from sandboxd.engine import Lease
    from sandboxd.engine.snapshot_cache import SnapshotCache
    from sandboxd.store import Snapshot


async def list_(call: Call) -> web.StreamResponse:
    """GET /sandbox/snapshots"""
    return json_reply([about(snapshot) for snapshot in call.engine.store.snapshots.list()])


async def inspect(call: Call) -> web.StreamResponse:
    """GET /sandbox/snapshots/{key}"""
    return json_reply(about(_find(call)))


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /sandbox/snapshots/{key}: volumes that started from it keep it alive."""
    call.engine.snapshots.remove(_find(call).key)
    return empty_reply()


async def claim(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/{key}/claim: one client builds, the others wait for the result."""
    cache = _cache(call)
    found = await call.engine.snapshots.claim(call.params["key"], _lease(call), cache)
    if found is None:
        return json_reply({"State": "build", **_of_cache(cache)})
    return json_reply({"State": "ready", "Snapshot": about(found), **_of_cache(cache)})


async def abandon(call: Call) -> web.StreamResponse:
    """DELETE /sandbox/snapshots/{key}/claim: whoever waits next builds."""
    call.engine.snapshots.abandon(call.params["key"], _lease(call))
    return empty_reply()


async def seal(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/{key}/seal: the volume's tree becomes the snapshot."""
    body = await call.body(SEAL)
    if not body.get("Volume"):
        raise BadRequest("nothing to seal", "the body names no Volume")
    cache = _cache(call)
    snapshot = await call.engine.snapshots.seal(
        call.params["key"], body["Volume"], body.get("Spec", {}), _lease(call), cache
    )
    return json_reply({**about(snapshot), **_of_cache(cache)})


async def build(call: Call) -> web.StreamResponse:
    """POST /sandbox/recipes: the snapshot of a recipe, built if there is none yet."""
    recipe = await call.body(RECIPE, limit=EXTENSION_BODY_LIMIT)
    for path, file in recipe.get("Files", {}).items():
        # Refused before anything is built.
        base64_bytes((file or {}).get("Content", ""), f"Files[{path}].Content")
    cache = _cache(call)
    snapshot = await call.engine.snapshots.build(recipe, None, cache)
    return json_reply({**about(snapshot), **_of_cache(cache)})


async def push(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/push: to a registry, under its key or the reference's tag."""
    body = await call.body(SNAPSHOT_PUSH)
    key, reference = body.get("Key") or "", body.get("Reference") or ""
    sent = await call.engine.snapshots.push(key, reference, credentials_of(call))
    return json_reply(
        {
            "Reference": sent.reference,
            "Digest": sent.digest,
            "Size": sent.size,
            "Existed": sent.existed,
        }
    )


async def pull(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/pull: from a registry, by its key or the reference's tag."""
    body = await call.body(SNAPSHOT_PULL)
    key, reference = body.get("Key") or None, body.get("Reference") or ""
    found = await call.engine.snapshots.pull(reference, credentials_of(call), key)
    return json_reply(about(found))


def about(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as JSON."""
    created = datetime.fromtimestamp(snapshot.created, UTC).isoformat().replace("+00:00", "Z")
    return {
        "Key": snapshot.key,
        "Digest": snapshot.digest,
        "Size": snapshot.size,
        "Files": snapshot.files,
        "Created": created,
        "Spec": snapshot.spec,
    }


def _cache(call: Call) -> SnapshotCache | None:
    """The repository that the query names as a cache: `cache` and `push`."""
    reference = call.query.text("cache")
    if not reference:
        return None
    desk = call.engine.snapshots
    return desk.cache(reference, credentials_of(call), push=call.query.flag("push"))


def _of_cache(cache: SnapshotCache | None) -> dict[str, Any]:
    if cache is None:
        return {}
    return {"Cache": {"Hit": cache.hit, "Warning": cache.warning}}


def _find(call: Call) -> Snapshot:
    key = call.params["key"]
    found = call.engine.store.snapshots.get(key)
    if found is None:
        raise NoSuchSnapshot.named(key)
    return found


def _lease(call: Call) -> Lease:
    lease = call.lease()
    if lease is None:
        why = "the request has no X-Sandbox-Lease header"
        raise BadRequest("a claim needs a lease", why, "POST /sandbox/leases first")
    return lease
