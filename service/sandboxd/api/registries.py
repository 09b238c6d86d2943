"""What needs a registry: pulls, logins, and questions about images that are not here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.progress import stream_progress
from sandboxd.api.replies import json_reply
from sandboxd.api.shapes import record, text

if TYPE_CHECKING:
    from sandboxd.images import Image
    from sandboxd.images.registry.credentials import Credentials

AUTH_HEADER = "X-Registry-Auth"
AUTH = record(
    username=text, password=text, email=text, serveraddress=text, auth=text, identitytoken=text,
    registrytoken=text,
)  # fmt: skip


async def pull(call: Call, reference: str) -> web.StreamResponse:
    """POST /images/create?fromImage&tag&platform"""
    images, platform = call.engine.images, call.query.text("platform")
    credentials = credentials_of(call)

    def publish(image: Image) -> None:
        call.engine.events.publish("image", "pull", image.id, {"name": reference})

    return await stream_progress(
        call,
        lambda tell, cancelled: images.pull(
            reference,
            platform=platform,
            credentials=credentials,
            progress=tell,
            cancelled=cancelled,
        ),
        publish,
    )


async def auth(call: Call) -> web.StreamResponse:
    """POST /auth: whether a registry accepts the credentials of the body."""
    from sandboxd.images.registry.credentials import from_document
    from sandboxd.images.registry.login import log_in

    document = await call.body(AUTH, optional=True)
    server = str(document.get("serveraddress") or "")
    credentials = from_document(document)
    await asyncio.to_thread(log_in, server, credentials)
    return json_reply({"Status": "Login Succeeded", "IdentityToken": ""})


async def distribution(call: Call) -> web.StreamResponse:
    """GET /distribution/{name+}/json: digest and platforms of an image in its registry."""
    name, credentials = call.params["name"], credentials_of(call)
    found = await asyncio.to_thread(call.engine.images.look_up, name, credentials)
    descriptor, platforms = found
    return json_reply(
        {
            "Descriptor": descriptor.to_document(),
            "Platforms": [platform.to_document() for platform in platforms],
        }
    )


def credentials_of(call: Call) -> Credentials | None:
    """Those of the header X-Registry-Auth. Raises BadRequest for a malformed one."""
    from sandboxd.images.registry.credentials import from_header

    return from_header(call.request.headers.get(AUTH_HEADER, ""))
