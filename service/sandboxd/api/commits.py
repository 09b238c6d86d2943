"""Containers turned into something else: an image, a list of changes, a tar archive."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxd.api.bodies import COMMIT
from sandboxd.api.call import Call
from sandboxd.api.container_root import opened_root
from sandboxd.api.downloads import Write, produce
from sandboxd.api.replies import json_reply
from sandboxd.api.tree_archive import TreeArchive
from sandboxd.engine.committing import CommitOptions, changes, commit
from sandboxd.engine.live_mounts import mounted_in
from sandboxd.errors import BadRequest, Forbidden
from sandboxd.images.reference import Reference

if TYPE_CHECKING:
    pass

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def create(call: Call) -> web.StreamResponse:
    """POST /commit?container&repo&tag&comment&author&changes&pause&epoch

    `epoch` is ours: no time in the image is later than that, in seconds since 1970.
    """
    query = call.query
    container = call.engine.find(query.text("container"))
    body = await call.body(COMMIT, optional=True)
    options = CommitOptions(
        name=_name(query.text("repo"), query.text("tag")),
        comment=query.text("comment"),
        author=query.text("author"),
        changes=[line for text in query.texts("changes") for line in text.splitlines() if line],
        config=body,
        pause=query.flag("pause", True),
        clamp=_epoch(query.text("epoch")),
    )
    # A commit that has begun is not cut short: a client that leaves would not know what it left.
    running = call.surface.finish_later(commit(call.engine, container, options))
    image = await asyncio.shield(running)
    attributes = {**container.attributes, "comment": options.comment, "imageID": image.id}
    call.engine.events.publish("container", "commit", container.id, attributes)
    return json_reply({"Id": image.id}, 201)


async def list_changes(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/changes"""
    found = await changes(call.engine, call.engine.find(call.params["id"]))
    return json_reply([{"Path": each.path, "Kind": each.kind} for each in found])


async def export(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/export: its root as a tar archive, without what is mounted in it."""
    engine = call.engine
    container = engine.find(call.params["id"])
    if engine.images.get(container.image).is_host:
        why = "its image host is this machine"
        mend = "docker cp takes single directories out of it"
        raise Forbidden(f"export container {container.name}", why, mend)
    async with opened_root(engine, container, "/") as root:
        program = container.program
        mounted = mounted_in(program.running.pid) if program else frozenset()

        def work(write: Write) -> None:
            directory = os.open(".", _DIRECTORY, dir_fd=root)
            try:
                for piece in TreeArchive(directory, ".", "", leave_empty=mounted).below():
                    write(piece)
            finally:
                os.close(directory)

        return await produce(call, "application/x-tar", work)


def _name(repo: str, tag: str) -> Reference | None:
    """Raises BadRequest for a name that is none; whether it may be given is checked later."""
    if not repo:
        return None
    reference = Reference.parse(f"{repo}:{tag}" if tag else repo)
    if reference.digest:
        raise BadRequest("refusing to create a tag with a digest reference")
    return reference


def _epoch(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise BadRequest(f"invalid epoch: {text[:40]!r}", "seconds since 1970 are expected")
    return int(text)
