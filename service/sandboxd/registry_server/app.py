"""From a request to its handler, and from whatever that raises to the specification's errors."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from sandboxd.errors import SandboxError
from sandboxd.registry_server import blobs, manifests
from sandboxd.registry_server.call import Call
from sandboxd.registry_server.faults import API_VERSION, Fault, unsupported
from sandboxd.registry_server.routes import parsed
from sandboxd.registry_server.surface import Surface
from sandboxd.threads import in_thread

log = logging.getLogger("sandboxd.registry")

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


async def _base(call: Call) -> web.StreamResponse:
    """GET /v2/: whether this is a registry, and lets the client in."""
    return web.json_response({}, headers=API_VERSION)


_HANDLERS: Final[dict[str, dict[str, Handler]]] = {
    "base": {"GET": _base, "HEAD": _base},
    "catalog": {"GET": manifests.catalog},
    "tags": {"GET": manifests.tags},
    "manifest": {
        "GET": manifests.get,
        "HEAD": manifests.get,
        "PUT": manifests.put,
        "DELETE": manifests.delete,
    },
    "referrers": {"GET": manifests.referrers},
    "blob": {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete},
    "uploads": {"POST": blobs.start},
    "upload": {
        "GET": blobs.status,
        "PATCH": blobs.append,
        "PUT": blobs.finish,
        "DELETE": blobs.cancel,
    },
}
_READING: Final = frozenset(("GET", "HEAD"))


class App:
    """The request handler that aiohttp's server calls.

    With `only_loopback` a request has to call the registry by a loopback name: a web page whose
    own name leads to 127.0.0.1 must not speak to it (DNS rebinding).
    """

    def __init__(self, surface: Surface, *, only_loopback: bool) -> None:
        self._surface, self._only_loopback = surface, only_loopback

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answered(request)
        except Fault as fault:
            reply = fault.reply(with_body=request.method != "HEAD")
        except SandboxError as error:
            reply = Fault.of(error).reply(with_body=request.method != "HEAD")
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            reply = Fault(500, "UNKNOWN", f"{type(error).__name__}: {error}").reply()
        if not request.content.is_eof():
            # What of the body is still to come would be read to its end before the next request.
            reply.force_close()
        return reply

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._only_loopback and not _is_loopback(request.headers.get("Host", "")):
            why = "this registry answers to 127.0.0.1, [::1] and localhost only"
            raise Fault(403, "DENIED", why, "serve it with --token-file or --htpasswd")
        target = parsed(request.rel_url.raw_path)
        writes = request.method not in _READING or target.kind in ("uploads", "upload")
        access, authorization = self._surface.access, request.headers.get("Authorization", "")
        if access.is_open:
            access.check(authorization, writes=writes)
        else:
            await in_thread(lambda: access.check(authorization, writes=writes))
        handlers = _HANDLERS[target.kind]
        if request.method not in handlers:
            fault = unsupported(f"{request.method} is not defined here")
            fault.headers["Allow"] = ", ".join(handlers)
            raise fault
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await handlers[request.method](Call(request, target, self._surface))


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
