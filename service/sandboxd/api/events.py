"""GET /events: what happens to containers, images and volumes, one JSON object a line."""

from __future__ import annotations

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.replies import encoded


async def events(call: Call) -> web.StreamResponse:
    """GET /events?since&until&filters

    The subscription exists before the answer's head goes out: whoever has the head misses nothing.
    """
    query = call.query
    subscription = call.engine.events.subscribe(
        query.moment("since"), query.moment("until"), query.filters(known=None)
    )
    try:
        response = await call.begin("application/json")
        async for event in subscription:
            await response.write(encoded(event) + b"\n")
    finally:
        subscription.close()
    return response
