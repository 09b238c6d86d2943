"""From a request to its handler, and from whatever the handler raises to an answer."""

from __future__ import annotations

import logging
import re

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.connection import connection_of
from sandboxd.api.replies import API_VERSION, MIN_API_VERSION, error_reply, failure
from sandboxd.api.router import Router
from sandboxd.api.routes import ROUTES
from sandboxd.api.surface import Surface
from sandboxd.errors import BadRequest, SandboxError

log = logging.getLogger(__name__)

_VERSION_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)", re.DOTALL)


class App:
    """The request handler that aiohttp's server calls."""

    def __init__(self, surface: Surface, router: Router | None = None) -> None:
        self._surface = surface
        self._router = router or Router(ROUTES)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        connection, body = connection_of(request), request.content
        with self._surface.activity:
            connection.body = body
            try:
                response = await self._answer(request)
            finally:
                connection.body = None
        if body.exception() is not None:
            body.feed_eof()  # there is no end to wait for
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call: Call | None = None
        try:
            version, path = negotiated(request.rel_url.raw_path)
            found = self._router.find(request.method, path)
            if found is None:
                return self._closing_an_upgrade(request, failure(404, "page not found"))
            handler, params = found
            call = Call(request, self._surface, params, version)
            if request.headers.get("Expect", "").lower() == "100-continue":
                await _send_continue(request)
            return await handler(call)
        except SandboxError as error:
            reply = error_reply(error)
        except (web.HTTPException, ConnectionError):
            raise
        except OSError as error:
            log.exception("%s %s failed", request.method, request.path)
            reply = error_reply(SandboxError.from_os(f"{request.method} {request.path}", error))
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            reply = error_reply(_internal(error))
        if call is not None and call.begun:
            # The head is out and promised success: cutting the stream is all that is left.
            raise ConnectionResetError("the handler failed after its answer had begun")
        return self._closing_an_upgrade(request, reply)

    @staticmethod
    def _closing_an_upgrade(request: web.BaseRequest, reply: web.Response) -> web.Response:
        # What follows a refused upgrade on the connection is not HTTP.
        if "Upgrade" in request.headers:
            reply.force_close()
        return reply


def negotiated(path: str) -> tuple[tuple[int, int], str]:
    """The API version that a path asks for, and the path without it.

    Raises BadRequest in dockerd's words for a version that is not served.
    """
    found = _VERSION_PREFIX.fullmatch(path)
    if found is None:
        return API_VERSION, path
    version = int(found[1]), int(found[2])
    asked = f"client version {version[0]}.{version[1]}"
    if version > API_VERSION:
        newest = f"{API_VERSION[0]}.{API_VERSION[1]}"
        raise BadRequest(f"{asked} is too new. Maximum supported API version is {newest}")
    if version < MIN_API_VERSION:
        oldest = f"{MIN_API_VERSION[0]}.{MIN_API_VERSION[1]}"
        what = f"{asked} is too old. Minimum supported API version is {oldest}, "
        raise BadRequest(f"{what}please upgrade your client to a newer version")
    return version, found[3]


async def _send_continue(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _internal(error: Exception) -> SandboxError:
    why = f"{type(error).__name__}: {error}"
    return SandboxError("the service failed to answer", why, "sandboxctl service logs shows where")
