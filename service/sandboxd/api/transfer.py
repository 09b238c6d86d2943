"""Images out of the service: into an archive, or to a registry."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.downloads import Write, produce
from sandboxd.api.progress import stream_progress
from sandboxd.api.registries import credentials_of
from sandboxd.errors import BadRequest
from sandboxd.images.pushing import Pushed, PushOptions
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


async def push(call: Call) -> web.StreamResponse:
    """POST /images/{name+}/push?tag&index&compression&format

    `index`, which may be repeated, is ours: images to push as one index, each for its platform;
    so are `compression`, gzip or zstd, and `format`, oci or docker.
    """
    engine, query = call.engine, call.query
    name, tag = call.params["name"], query.text("tag")
    reference = f"{name}:{tag}" if tag else name
    options = PushOptions(query.text("compression") or "gzip", query.text("format"))
    credentials = credentials_of(call)

    def publish(pushed: Sequence[Pushed]) -> None:
        engine.events.publish("image", "push", reference, {"name": reference})

    return await stream_progress(
        call,
        lambda tell, cancelled: engine.images.push(
            reference,
            index=query.texts("index"),
            options=options,
            credentials=credentials,
            progress=tell,
            cancelled=cancelled,
        ),
        publish,
    )


async def _saved(call: Call, names: list[str]) -> web.StreamResponse:
    engine = call.engine
    images = chosen(engine.images, names)

    def work(write: Write) -> None:
        ImageSaver(engine.store, engine.store.idmap, write).save(images)

    for each in images:
        for name in each.names or (each.image.id,):
            engine.events.publish("image", "save", each.image.id, {"name": name})
    return await produce(call, "application/x-tar", work)
