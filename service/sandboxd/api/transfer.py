"""Images out of the service: into an archive, or to a registry."""

from __future__ import annotations

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.downloads import Write, produce
from sandboxd.errors import BadRequest
from sandboxd.images.saving import ImageSaver, chosen


async def save(call: Call) -> web.StreamResponse:
    """GET /images/{name+}/get"""
    return await _saved(call, [call.params["name"]])


async def save_all(call: Call) -> web.StreamResponse:
    """GET /images/get?names"""
    names = call.query.texts("names")
    if not names:
        raise BadRequest("no image to save", "names is empty", "name at least one image")
    return await _saved(call, names)


async def _saved(call: Call, names: list[str]) -> web.StreamResponse:
    engine = call.engine
    images = chosen(engine.images, names)

    def work(write: Write) -> None:
        ImageSaver(engine.store, engine.store.idmap, write).save(images)

    for each in images:
        for name in each.names or (each.image.id,):
            engine.events.publish("image", "save", each.image.id, {"name": name})
    return await produce(call, "application/x-tar", work)
