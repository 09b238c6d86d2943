"""Request bodies of any size, for code that reads files in a thread."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar, cast

from aiohttp import ClientPayloadError, web

from sandboxd.errors import BadRequest
from sandboxd.threads import in_thread

T = TypeVar("T")


class Upload(io.RawIOBase):
    """A request's body as a raw file to be read from another thread than the event loop's.

    A body that breaks off raises BadRequest there: it must not pass for a shorter one.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__()
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        if not self._rest:
            self._rest = memoryview(self._next_chunk())
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _next_chunk(self) -> bytes:
        arrival = asyncio.run_coroutine_threadsafe(self._content.readany(), self._loop)
        try:
            return arrival.result()
        except (web.RequestPayloadError, ClientPayloadError, ConnectionError) as error:
            raise BadRequest("the upload broke off", str(error)) from error


async def consume(request: web.BaseRequest, read: Callable[[BinaryIO], T]) -> T:
    """Run `read` in a thread, on the body of `request`, and return what it returns.

    When the client leaves, `read` meets an error at its next read, cleans up and is waited for.
    """
    with io.BufferedReader(Upload(request), 1 << 20) as body:
        return await in_thread(lambda: read(cast(BinaryIO, body)))
