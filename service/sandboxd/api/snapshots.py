"""Snapshots and the recipes that fill them, under /sandbox/."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd.api.bodies import RECIPE, SEAL
from sandboxd.api.call import EXTENSION_BODY_LIMIT, Call
from sandboxd.api.extension import base64_bytes
from sandboxd.api.replies import empty_reply, json_reply
from sandboxd.errors import BadRequest, NoSuchSnapshot

if TYPE_CHECKING:
    from sandboxd.engine import Lease
    from sandboxd.store import Snapshot


async def list_(call: Call) -> web.StreamResponse:
    """GET /sandbox/snapshots"""
    return json_reply([about(snapshot) for snapshot in call.engine.store.snapshots.list()])


async def inspect(call: Call) -> web.StreamResponse:
    """GET /sandbox/snapshots/{key}"""
    return json_reply(about(_find(call)))


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /sandbox/snapshots/{key}: volumes that started from it keep it alive."""
    call.engine.remove_snapshot(_find(call).key)
    return empty_reply()


async def claim(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/{key}/claim: one client builds, the others wait for the result."""
    found = await call.engine.claim(call.params["key"], _lease(call))
    if found is None:
        return json_reply({"State": "build"})
    return json_reply({"State": "ready", "Snapshot": about(found)})


async def abandon(call: Call) -> web.StreamResponse:
    """DELETE /sandbox/snapshots/{key}/claim: whoever waits next builds."""
    call.engine.abandon(call.params["key"], _lease(call))
    return empty_reply()


async def seal(call: Call) -> web.StreamResponse:
    """POST /sandbox/snapshots/{key}/seal: the volume's tree becomes the snapshot."""
    body = await call.body(SEAL)
    if not body.get("Volume"):
        raise BadRequest("nothing to seal", "the body names no Volume")
    snapshot = await call.engine.seal(
        call.params["key"], body["Volume"], body.get("Spec", {}), _lease(call)
    )
    return json_reply(about(snapshot))


async def build(call: Call) -> web.StreamResponse:
    """POST /sandbox/recipes: the snapshot of a recipe, built if there is none yet."""
    recipe = await call.body(RECIPE, limit=EXTENSION_BODY_LIMIT)
    for path, file in recipe.get("Files", {}).items():
        # Refused before anything is built.
        base64_bytes((file or {}).get("Content", ""), f"Files[{path}].Content")
    return json_reply(about(await call.engine.build_recipe(recipe, None)))


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
