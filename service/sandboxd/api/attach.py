"""The two-way stream of a program: attach to a container, start an exec."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandboxd.api.bodies import EXEC_CREATE, EXEC_START
from sandboxd.api.call import Call
from sandboxd.api.containers import console_size, window
from sandboxd.api.detach_keys import DetachKeys
from sandboxd.api.frames import STDOUT, frame, stream_type
from sandboxd.api.hijack import Stream, Taken, hijacked
from sandboxd.api.replies import empty_reply, json_reply
from sandboxd.errors import StartFailed

if TYPE_CHECKING:
    from sandboxd.engine import Attachment


async def attach(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/attach?stream&logs&stdin&stdout&stderr&detachKeys

    Works on a container that is merely created: `docker run` attaches before it starts.
    """
    engine, query = call.engine, call.query
    container = engine.find(call.params["id"])
    keys = DetachKeys.parse(query.text("detachKeys"))
    stdin = query.flag("stdin") and query.flag("stream")
    attachment = engine.attach(
        container,
        logs=query.flag("logs"),
        stream=query.flag("stream"),
        stdin=stdin,
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
    )
    try:
        await _converse(call, attachment, stdin=stdin, keys=keys)
    finally:
        attachment.detach()
    return Taken()


async def exec_create(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/exec"""
    engine = call.engine
    container = engine.find(call.params["id"])
    body = await call.body(EXEC_CREATE)
    return json_reply({"Id": await engine.exec_create(container, body)}, 201)


async def exec_inspect(call: Call) -> web.StreamResponse:
    """GET /exec/{id}/json"""
    return json_reply(call.engine.exec_inspect(call.params["id"]))


async def exec_resize(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/resize?h&w"""
    rows, columns = window(call)
    call.engine.exec_resize(call.params["id"], rows, columns)
    return empty_reply(200)


async def exec_start(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/start: a stream, or an empty 200 when detached.

    A command that is not there is told as output of the stream, and by the exit code (126 or 127)
    that /exec/{id}/json then has; detached, it is an error.
    """
    engine = call.engine
    exec_id = call.params["id"]
    body = await call.body(EXEC_START, optional=True)
    about = engine.exec_inspect(exec_id)
    tty: bool = about["ProcessConfig"]["tty"]
    detach = bool(body.get("Detach"))
    try:
        attachment = await engine.exec_start(
            exec_id, detach=detach, tty=bool(body.get("Tty")), size=console_size(body)
        )
    except StartFailed as error:
        if detach:
            raise
        async with hijacked(call, stream_type(call.version, tty=tty)) as stream:
            text = f"{error.message}\r\n".encode()
            await stream.write(text if tty else frame(STDOUT, text))
        return Taken()
    if attachment is None:
        return empty_reply(200)
    try:
        keys = DetachKeys.parse(about.get("DetachKeys", ""))
        await _converse(call, attachment, stdin=bool(about["OpenStdin"]), keys=keys)
    finally:
        attachment.detach()
    return Taken()


async def _converse(call: Call, attachment: Attachment, *, stdin: bool, keys: DetachKeys) -> None:
    """Carry bytes both ways until the program's output has ended or the client has detached."""
    tty = attachment.tty
    async with hijacked(call, stream_type(call.version, tty=tty)) as stream:
        output = asyncio.ensure_future(_send_output(stream, attachment, tty=tty))
        if stdin:
            feed = _feed_input(stream, attachment, keys if tty else DetachKeys(b""))
            input_ = asyncio.ensure_future(feed)
        else:
            input_ = None
        try:
            await _until_over(output, input_)
        finally:
            await _end(output, input_)


async def _end(*tasks: asyncio.Task[Any] | None) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _until_over(output: asyncio.Task[None], input_: asyncio.Task[bool] | None) -> None:
    if input_ is not None:
        await asyncio.wait((output, input_), return_when=asyncio.FIRST_COMPLETED)
        if input_.done() and not output.done() and input_.result():
            return
    await output


async def _send_output(stream: Stream, attachment: Attachment, *, tty: bool) -> None:
    async for number, data in attachment:
        await stream.write(data if tty else frame(number, data))


async def _feed_input(stream: Stream, attachment: Attachment, keys: DetachKeys) -> bool:
    """Pass the client's bytes on to the program; True when the detach keys were pressed."""
    while data := await stream.read():
        data, detached = keys.feed(data)
        if data:
            await attachment.write(data)
        if detached:
            return True
    await attachment.close_stdin()
    return False
