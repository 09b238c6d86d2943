"""Containers: from create to remove, and what can be asked about them between."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandboxd.api.bodies import CONTAINER_CREATE
from sandboxd.api.call import Call
from sandboxd.api.frames import frame, stream_type
from sandboxd.api.replies import empty_reply, encoded, json_reply
from sandboxd.errors import BadRequest

LIST_FILTERS = frozenset(
    ("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label")
    + ("name", "network", "publish", "since", "status", "volume")
)


async def create(call: Call) -> web.StreamResponse:
    """POST /containers/create?name&platform"""
    body = await call.body(CONTAINER_CREATE)
    container = await call.engine.create(
        body, call.query.text("name") or None, call.query.text("platform"), lease=call.lease()
    )
    return json_reply({"Id": container.id, "Warnings": []}, 201)


async def list_(call: Call) -> web.StreamResponse:
    """GET /containers/json?all&limit&size&filters (and the older before, since)"""
    query = call.query
    filters = query.filters(LIST_FILTERS)
    for name in ("before", "since"):
        if query.text(name):
            filters[name] = [query.text(name)]
    limit = query.integer("limit", -1)
    rows = call.engine.list(
        all=query.flag("all"), limit=limit, filters=filters, size=query.flag("size")
    )
    return json_reply(rows)


async def inspect(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/json?size"""
    engine = call.engine
    return json_reply(engine.inspect(engine.find(call.params["id"]), call.query.flag("size")))


async def start(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/start: 204, or 304 when it runs already."""
    engine = call.engine
    started = await engine.start_container(engine.find(call.params["id"]))
    return empty_reply(204 if started else 304)


async def stop(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/stop?t&signal: answers after its death; 304 when it was stopped."""
    engine, query = call.engine, call.query
    timeout, signal = query.seconds("t"), query.text("signal") or None
    stopped = await engine.stop(engine.find(call.params["id"]), timeout, signal)
    return empty_reply(204 if stopped else 304)


async def restart(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/restart?t"""
    engine = call.engine
    await engine.restart(engine.find(call.params["id"]), call.query.seconds("t"))
    return empty_reply()


async def kill(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/kill?signal"""
    engine = call.engine
    await engine.kill(engine.find(call.params["id"]), call.query.text("signal") or "KILL")
    return empty_reply()


async def pause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/pause"""
    engine = call.engine
    await engine.pause(engine.find(call.params["id"]))
    return empty_reply()


async def unpause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/unpause"""
    engine = call.engine
    await engine.unpause(engine.find(call.params["id"]))
    return empty_reply()


async def rename(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/rename?name"""
    engine = call.engine
    name = call.query.text("name")
    if not name:
        raise BadRequest("Neither old nor new names may be empty")
    await engine.rename(engine.find(call.params["id"]), name)
    return empty_reply()


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /containers/{id}?force&v&link: answers when the name is free again."""
    engine, query = call.engine, call.query
    container = engine.find(call.params["id"])
    await engine.remove(container, query.flag("force"), query.flag("v"), link=query.flag("link"))
    return empty_reply()


async def resize(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/resize?h&w"""
    rows, columns = window(call)
    call.engine.resize(call.engine.find(call.params["id"]), rows, columns)
    return empty_reply(200)


async def wait(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/wait?condition

    `docker run` asks before the start and goes on only when it has this answer's head; so the
    condition is watched from before the head goes out.
    """
    engine = call.engine
    condition = call.query.text("condition") or "not-running"
    outcome = engine.wait(engine.find(call.params["id"]), condition)
    response = await call.begin("application/json")
    await response.write(encoded({"StatusCode": await outcome}))
    return response


async def logs(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/logs?stdout&stderr&follow&tail&since&until&timestamps"""
    engine, query = call.engine, call.query
    container = engine.find(call.params["id"])
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not stdout and not stderr:
        raise BadRequest("Bad parameters: you must choose at least one stream")
    output = engine.logs(
        container,
        stdout=stdout,
        stderr=stderr,
        since=query.moment("since"),
        until=query.moment("until"),
        timestamps=query.flag("timestamps"),
        tail=_tail(query.text("tail")),
        follow=query.flag("follow"),
    )
    tty: bool = engine.inspect(container)["Config"]["Tty"]
    response = await call.begin(stream_type(call.version, tty=tty))
    async for stream, data in output:
        await response.write(data if tty else frame(stream, data))
    return response


async def prune(call: Call) -> web.StreamResponse:
    """POST /containers/prune: all that have stopped, or the labelled ones among them."""
    engine = call.engine
    filters = call.query.filters(("label", "label!", "until"))
    removed = await engine.prune(filters)
    return json_reply({"ContainersDeleted": removed or None, "SpaceReclaimed": 0})


def window(call: Call) -> tuple[int, int]:
    """Rows and columns of a resize."""
    rows, columns = call.query.integer("h", -1), call.query.integer("w", -1)
    if not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise BadRequest("invalid window size", f"h={rows}, w={columns}")
    return rows, columns


def console_size(body: dict[str, Any]) -> tuple[int, int] | None:
    """`ConsoleSize: [h, w]` of a body; None when it is absent or [0, 0]."""
    size = body.get("ConsoleSize")
    if not size or size == [0, 0]:
        return None
    if len(size) != 2 or not all(0 <= side < 1 << 16 for side in size):
        raise BadRequest("invalid ConsoleSize", f"{size} is not [rows, columns]")
    return size[0], size[1]


def _tail(text: str) -> int | None:
    """A number of lines, or None for all: Docker takes what is no number for all."""
    try:
        lines = int(text)
    except ValueError:
        return None
    return lines if lines >= 0 else None
