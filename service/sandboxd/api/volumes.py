"""Volumes: create (also from a snapshot), list, inspect, remove, prune."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd.api.bodies import VOLUME_CREATE
from sandboxd.api.call import Call
from sandboxd.api.replies import empty_reply, json_reply

if TYPE_CHECKING:
    from sandboxd.volumes import Volume

LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
PRUNE_FILTERS = frozenset(("all", "label", "label!"))
_FALSE = ("0", "false")
_ANONYMOUS_LABEL = "com.docker.volume.anonymous"


async def create(call: Call) -> web.StreamResponse:
    """POST /volumes/create. The same name again answers with the volume that is there."""
    body = await call.body(VOLUME_CREATE, optional=True)
    sandbox = body.get("Sandbox", {})
    volume = call.engine.create_volume(
        body.get("Name") or None,
        driver=body.get("Driver") or "local",
        labels=body.get("Labels") or {},
        options=body.get("DriverOpts") or {},
        snapshot=sandbox.get("Snapshot") or None,
        scratch=bool(sandbox.get("Scratch")),
        lease=call.lease(),
    )
    return json_reply(about(volume), 201)


async def list_(call: Call) -> web.StreamResponse:
    """GET /volumes?filters"""
    volumes = call.engine.list_volumes(call.query.filters(LIST_FILTERS))
    return json_reply({"Volumes": [about(volume) for volume in volumes], "Warnings": None})


async def inspect(call: Call) -> web.StreamResponse:
    """GET /volumes/{id}"""
    return json_reply(about(call.engine.volumes.get(call.params["id"])))


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /volumes/{id}?force"""
    call.engine.remove_volume(call.params["id"], call.query.flag("force"))
    return empty_reply()


async def prune(call: Call) -> web.StreamResponse:
    """POST /volumes/prune?filters: unused volumes; since API 1.42 only those without a name,
    unless `all=true` is among the filters."""
    filters = call.query.filters(PRUNE_FILTERS)
    wanted = filters.pop("all", ["false"])[0].lower() not in _FALSE
    names, reclaimed = call.engine.prune_volumes(
        filters, named_too=wanted or call.version < (1, 42)
    )
    return json_reply({"VolumesDeleted": names or None, "SpaceReclaimed": reclaimed})


def about(volume: Volume) -> dict[str, Any]:
    """A volume in Docker's words."""
    labels = dict(volume.labels)
    if volume.anonymous:
        labels[_ANONYMOUS_LABEL] = ""
    row: dict[str, Any] = {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": str(volume.mountpoint),
        "CreatedAt": datetime.fromtimestamp(int(volume.created), UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        "Labels": labels or None,
        "Scope": "local",
        "Options": dict(volume.options) or None,
    }
    if volume.snapshot:
        row["Status"] = {"Snapshot": volume.snapshot}
    return row
