"""Leases: what a client makes lives as long as one connection of its own."""

from __future__ import annotations

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.frames import RAW_STREAM
from sandboxd.api.hijack import Taken, hijacked
from sandboxd.api.replies import encoded, json_reply


async def hold(call: Call) -> web.StreamResponse:
    """POST /sandbox/leases?label: the connection itself is the lease.

    It sends `{"Id": …}` and a newline, and then nothing. When the client closes it, half or whole,
    or dies, all that was made under the lease is removed.
    """
    engine = call.engine
    lease = engine.lease(call.query.text("label"))
    try:
        async with hijacked(call, RAW_STREAM) as stream:
            await stream.write(encoded({"Id": lease.id}) + b"\n")
            while await stream.read():
                pass
    finally:
        # The handler is being cancelled when its client has died: the release must outlive it.
        call.surface.finish_later(engine.release(lease))
    return Taken()


async def list_(call: Call) -> web.StreamResponse:
    """GET /sandbox/leases"""
    return json_reply([lease.about() for lease in call.engine.leases()])
