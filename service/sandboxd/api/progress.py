"""Long work in a thread whose progress is the answer: Docker's stream of JSON objects.

The head goes out with the first object, so that what fails before it has a status of its own; what
fails later becomes the stream's last object, as clients expect.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.replies import error_line, message_line
from sandboxd.errors import SandboxError

T = TypeVar("T")
Tell = Callable[[dict[str, Any]], None]

_THREADS = ThreadPoolExecutor(16, "progress")
"""Apart from the loop's own, which short work must always find free."""


async def stream_progress(
    call: Call,
    work: Callable[[Tell, threading.Event], T],
    done: Callable[[T], None] = lambda _: None,
) -> web.StreamResponse:
    """Run `work(tell, cancelled)` in a thread and stream what it tells; `done` gets its result.

    `cancelled` is set when the client has left; the thread is waited for.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    cancelled = threading.Event()

    def tell(line: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(told.put_nowait, line)

    def run() -> T:
        try:
            return work(tell, cancelled)
        finally:
            loop.call_soon_threadsafe(told.put_nowait, None)

    running = loop.run_in_executor(_THREADS, run)
    response: web.StreamResponse | None = None
    try:
        while line := await told.get():
            if response is None:
                response = await call.begin("application/json")
            await response.write(message_line(line))
        result = await running
        done(result)
    except SandboxError as error:
        if response is None:
            raise
        await response.write(error_line(error.message, error.status))
    except BaseException:
        cancelled.set()
        # A service that stops waits for it, too: what the thread works on must still be there.
        await asyncio.shield(call.surface.finish_later(_ended(running)))
        raise
    return response or await call.begin("application/json")


async def _ended(running: asyncio.Future[Any]) -> None:
    """Nobody is left whom a failure could be told."""
    await asyncio.gather(running, return_exceptions=True)
