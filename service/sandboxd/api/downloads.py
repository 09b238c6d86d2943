"""Answers of any size, from code that writes them in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.threads import in_thread

Write = Callable[[bytes | memoryview], object]

_GATHER = 256 << 10


async def produce(
    call: Call, content_type: str, work: Callable[[Write], None]
) -> web.StreamResponse:
    """Begin the answer, run `work` in a thread, and send what it writes as it comes.

    A client that is slow holds the thread up; for one that has left, the next write raises. An
    error after the first byte breaks the connection off, so that nobody takes a part for the whole.
    """
    response = await call.begin(content_type)
    loop = asyncio.get_running_loop()
    pending = bytearray()

    def send() -> None:
        data = bytes(pending)
        pending.clear()
        asyncio.run_coroutine_threadsafe(response.write(data), loop).result()

    def write(data: bytes | memoryview) -> None:
        pending.extend(data)
        if len(pending) >= _GATHER:
            send()

    def run() -> None:
        work(write)
        if pending:
            send()

    await in_thread(run)
    return response
