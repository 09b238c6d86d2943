"""One request on its way through a handler: its target, its query, its body, and its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from aiohttp import ClientPayloadError, web

from sandboxd.registry_server.faults import Fault, upload_invalid
from sandboxd.registry_server.routes import Target

if TYPE_CHECKING:
    from sandboxd.registry_server.surface import Surface

_FIELDS_MAX: Final = 200
_BYTES: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Call:
    request: web.BaseRequest
    target: Target
    surface: Surface

    @property
    def name(self) -> str:
        """The repository."""
        return self.target.name

    @property
    def which(self) -> str:
        """A tag, a digest or an upload's id."""
        return self.target.which

    def query(self, key: str) -> str | None:
        """The first value of a parameter, None where it is not given."""
        found = self.queries(key)
        return found[0] if found else None

    def queries(self, key: str) -> list[str]:
        try:
            text = self.request.rel_url.raw_query_string
            values = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
        except ValueError as error:
            raise Fault(400, "UNSUPPORTED", f"malformed query: {error}") from None
        return values.get(key, [])

    def count(self, key: str) -> int | None:
        """A number of results; None where it is not given."""
        text = self.query(key)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise Fault(400, "PAGINATION_NUMBER_INVALID", f"{key}={text[:40]!r} is no number")
        return int(text)

    @property
    def length(self) -> int | None:
        """The body's length in bytes as its head says; None where it comes in chunks."""
        return self.request.content_length

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        """The body in pieces of about 1 MiB, as far as it comes.

        Raises Fault when it is longer than `limit` bytes, breaks off, or stalls, after what had
        arrived by then.
        """
        if (self.length or 0) > limit:
            raise Fault(413, "SIZE_INVALID", f"more than {limit} bytes")
        waiting, size = bytearray(), 0
        fault: Fault | None = None
        while fault is None:
            try:
                async with asyncio.timeout(self.surface.stall):
                    chunk = await self.request.content.readany()
            except TimeoutError:
                why = f"nothing came for {self.surface.stall:g} s"
                fault = Fault(408, "BLOB_UPLOAD_INVALID", why)
                break
            except (web.RequestPayloadError, ClientPayloadError, ConnectionError) as error:
                fault = upload_invalid(f"the body broke off: {error}")
                break
            if not chunk:
                break
            size += len(chunk)
            if size > limit:
                raise Fault(413, "SIZE_INVALID", f"more than {limit} bytes")
            waiting += chunk
            if len(waiting) >= _PIECE:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)
        if fault is not None:
            raise fault

    def range(self, size: int) -> tuple[int, int] | None:
        """First byte and count of the range that is asked for; None for the whole.

        RFC 9110, section 14: one range of bytes; several, and other units, are ignored as it
        allows. Raises Fault 416 for one that lies outside.
        """
        found = _BYTES.fullmatch(self.request.headers.get("Range", "").strip())
        if found is None or found[0] == "bytes=-" or "If-Range" in self.request.headers:
            return None
        first, last = found.groups()
        if not first:
            count = min(int(last), size)
            start = size - count
        else:
            start = int(first)
            end = min(int(last), size - 1) if last else size - 1
            if last and int(last) < start:
                return None
            count = end - start + 1
        if count <= 0 or start >= size:
            headers = {"Content-Range": f"bytes */{size}"}
            raise Fault(416, "UNSUPPORTED", f"the blob has {size} bytes", headers=headers)
        return start, count
