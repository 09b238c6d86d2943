"""One request on its way through a handler: what was asked, and how to answer it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from sandboxd.api.query import Query
from sandboxd.api.replies import FRAME_HEADERS
from sandboxd.api.shapes import Shape
from sandboxd.errors import BadRequest

if TYPE_CHECKING:
    from sandboxd.api.surface import Surface
    from sandboxd.engine import Engine, Lease

LEASE_HEADER = "X-Sandbox-Lease"
"""Names the lease under which a request makes what it makes."""
DOCKER_BODY_LIMIT = 4 << 20
"""Bytes of a JSON body on Docker's routes."""
EXTENSION_BODY_LIMIT = 96 << 20
"""Bytes of a JSON body that may hold base64 of standard input or of a recipe's files."""
BODY_SECONDS = 60.0
"""A client that takes longer than this to send a JSON body is dropped."""


class Call:
    """A request with its route's placeholders, its query and its negotiated API version."""

    __slots__ = ("begun", "params", "query", "request", "surface", "version")

    def __init__(
        self,
        request: web.BaseRequest,
        surface: Surface,
        params: Mapping[str, str],
        version: tuple[int, int],
    ) -> None:
        self.request, self.surface, self.params, self.version = request, surface, params, version
        self.query = Query(request.rel_url.raw_query_string)
        self.begun = False
        """The head of a streamed answer has been sent: an error can no longer have a status."""

    @property
    def engine(self) -> Engine:
        return self.surface.engine

    def lease(self) -> Lease | None:
        """The lease that the request names; NotFound when there is no such lease (any more)."""
        lease_id = self.request.headers.get(LEASE_HEADER)
        return self.engine.find_lease(lease_id) if lease_id else None

    async def begin(
        self, content_type: str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Send the head of a streamed answer at once: clients wait for it before they go on."""
        head = {**FRAME_HEADERS, "Content-Type": content_type, **(headers or {})}
        response = web.StreamResponse(headers=head)
        self.mark_begun()
        await response.prepare(self.request)
        return response

    def mark_begun(self) -> None:
        """From here on the answer is a stream."""
        self.begun = True
        self.surface.is_streaming()

    async def body(
        self, shape: Shape, *, optional: bool = False, limit: int = DOCKER_BODY_LIMIT
    ) -> dict[str, Any]:
        """The JSON body in canonical spelling. An `optional` one may be empty or null."""
        raw = await self._read(limit)
        if not raw.strip():
            if optional:
                return {}
            raise BadRequest("invalid JSON: got EOF while reading request body")
        self._check_content_type()
        value = _decoded(raw)
        if value is None and optional:
            return {}
        return shape(value, "")  # type: ignore[return-value]

    def _check_content_type(self) -> None:
        header = self.request.headers.get("Content-Type", "")
        if header.partition(";")[0].strip().lower() != "application/json":
            what = f"unsupported Content-Type header ({header}): must be 'application/json'"
            raise BadRequest(what)

    async def _read(self, limit: int) -> bytes:
        if not self.request.can_read_body:
            return b""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in self.request.content.iter_any():
                    size += len(chunk)
                    if size > limit:
                        raise BadRequest("request body too large", f"more than {limit} bytes")
                    chunks.append(chunk)
        except TimeoutError as error:
            raise BadRequest("request body incomplete", "it took too long") from error
        except web.RequestPayloadError as error:
            raise BadRequest("request body incomplete", str(error)) from error
        return b"".join(chunks)


def _decoded(raw: bytes) -> object:
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant)
        if b"\\ud" in raw.lower():
            # An unpaired surrogate could not be encoded again; Go's decoder replaces it likewise.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise BadRequest("unexpected content after JSON") from error
        raise BadRequest(f"invalid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise BadRequest("invalid JSON: it is not UTF-8", str(error)) from error
    except RecursionError as error:
        raise BadRequest("invalid JSON: exceeded max depth") from error
    except ValueError as error:
        raise BadRequest(f"invalid JSON: {error}") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid literal {name}")
