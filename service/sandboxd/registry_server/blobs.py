"""Blobs: pulled, whole or in part; pushed in one request or in many; mounted; deleted.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, "Pulling blobs" and
"Pushing blobs". Locations are paths, so that no client-sent host name comes back in one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import BinaryIO, Final

from aiohttp import web

from sandboxd.errors import NotFound, SandboxError
from sandboxd.registry_server.call import Call
from sandboxd.registry_server.faults import (
    API_VERSION,
    Fault,
    blob_unknown,
    digest_invalid,
    out_of_order,
    upload_invalid,
)
from sandboxd.registry_server.routes import checked_digest, checked_name
from sandboxd.registry_server.uploads import Upload
from sandboxd.threads import in_thread

_OCTETS: Final = "application/octet-stream"
_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?", re.ASCII)


async def get(call: Call) -> web.StreamResponse:
    """GET and HEAD /v2/NAME/blobs/DIGEST"""
    file = await in_thread(lambda: _open(call, call.name, call.which))
    if file is None:
        raise blob_unknown(call.which)
    with file:
        return await _sent(call, file)


async def delete(call: Call) -> web.StreamResponse:
    """DELETE /v2/NAME/blobs/DIGEST: this repository has it no more."""
    repositories = call.surface.repositories
    if not await in_thread(lambda: repositories.delete_blob(call.name, call.which)):
        raise blob_unknown(call.which)
    return web.Response(status=202, headers=API_VERSION)


async def start(call: Call) -> web.StreamResponse:
    """POST /v2/NAME/blobs/uploads/: a session, a whole blob, or a mount."""
    if (mounted := call.query("mount")) is not None:
        source = call.query("from")
        if await in_thread(lambda: _mount(call, mounted, source)):
            return _created(call, mounted)
    expected = call.query("digest")
    if expected is not None:
        checked_digest(expected)
    if (algorithm := call.query("digest-algorithm") or "sha256") != "sha256":
        raise digest_invalid(algorithm)
    upload = await in_thread(lambda: call.surface.uploads.start(call.name))
    if expected is None:
        return _under_way(call, upload, 202)
    try:
        return await _finished(call, upload, expected)
    except BaseException:
        call.surface.uploads.drop(upload)
        raise


async def status(call: Call) -> web.StreamResponse:
    """GET /v2/NAME/blobs/uploads/ID: how much has arrived."""
    return _under_way(call, call.surface.uploads.find(call.name, call.which), 204)


async def append(call: Call) -> web.StreamResponse:
    """PATCH /v2/NAME/blobs/uploads/ID: the next chunk, or with no Content-Range all that comes."""
    upload = call.surface.uploads.find(call.name, call.which)
    await _received(call, upload)
    return _under_way(call, upload, 202)


async def finish(call: Call) -> web.StreamResponse:
    """PUT /v2/NAME/blobs/uploads/ID?digest=DIGEST: the last chunk, if any, and the end."""
    upload = call.surface.uploads.find(call.name, call.which)
    expected = call.query("digest")
    if expected is None:
        raise digest_invalid("")
    return await _finished(call, upload, checked_digest(expected))


async def cancel(call: Call) -> web.StreamResponse:
    """DELETE /v2/NAME/blobs/uploads/ID"""
    upload = call.surface.uploads.find(call.name, call.which)
    upload.begin()
    call.surface.uploads.drop(upload)
    return web.Response(status=204, headers=API_VERSION)


def _open(call: Call, repository: str, digest: str) -> BinaryIO | None:
    surface = call.surface
    if surface.repositories.has_blob(repository, digest):
        try:
            return surface.store.blobs.open(digest)
        except NotFound:
            return None
    return surface.local.open_blob(repository, digest)


async def _sent(call: Call, file: BinaryIO) -> web.StreamResponse:
    size = os.fstat(file.fileno()).st_size
    headers = {
        **API_VERSION,
        "Content-Type": _OCTETS,
        "Docker-Content-Digest": call.which,
        "ETag": f'"{call.which}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
    }
    found = call.range(size)
    start, count = found or (0, size)
    if found is not None:
        headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{size}"
    response = web.StreamResponse(status=200 if found is None else 206, headers=headers)
    response.content_length = count
    await response.prepare(call.request)
    transport = call.request.transport
    if call.request.method != "HEAD" and count:
        if transport is None:
            raise ConnectionResetError("the client has left")
        await asyncio.get_running_loop().sendfile(transport, file, start, count)
    await response.write_eof()
    return response


def _mount(call: Call, digest: str, source: str | None) -> bool:
    """Whether the blob was found and is this repository's now; else the client uploads it."""
    checked_digest(digest)
    repositories = call.surface.repositories
    with repositories.keeping(digest):
        if source is None:
            found = call.surface.store.roots.keeps(digest)
        else:
            file = _open(call, checked_name(source), digest)
            found = file is not None
            if file is not None:
                file.close()
        if found:
            repositories.link(call.name, digest)
    return found


async def _received(call: Call, upload: Upload) -> None:
    """Append the request's body. What came before a body broke off is kept, and can be asked for.

    Raises Fault; where the disk is full or the bound is passed, the upload is over.
    """
    upload.begin()
    try:
        _check_place(call, upload)
        async for piece in call.pieces(call.surface.blob_max - upload.size):
            await in_thread(_writing(upload, piece))
    except SandboxError:
        call.surface.uploads.drop(upload)
        raise
    except Fault as fault:
        if fault.code == "SIZE_INVALID":
            call.surface.uploads.drop(upload)
        raise
    finally:
        upload.end()


def _writing(upload: Upload, piece: bytes) -> Callable[[], None]:
    return lambda: upload.write(piece)


def _check_place(call: Call, upload: Upload) -> None:
    """That a chunk with a Content-Range begins where the last one ended, and is as long."""
    header = call.request.headers.get("Content-Range")
    if header is None:
        return
    found = _CONTENT_RANGE.fullmatch(header.strip())
    if found is None:
        raise upload_invalid(f"Content-Range {header[:80]!r} is not FIRST-LAST")
    first, last = int(found[1]), int(found[2])
    if first != upload.size:
        raise out_of_order(upload.size, _place(call, upload))
    if last < first or (call.length is not None and call.length != last - first + 1):
        why = f"Content-Range {header[:80]!r} and Content-Length {call.length} disagree"
        raise upload_invalid(why)


async def _finished(call: Call, upload: Upload, expected: str) -> web.StreamResponse:
    await _received(call, upload)
    if upload.digest != expected:
        call.surface.uploads.drop(upload)
        why = f"the content's digest is {upload.digest}, {expected} was promised"
        raise Fault(400, "DIGEST_INVALID", why)
    upload.begin()
    try:
        repositories = call.surface.repositories
        await in_thread(lambda: repositories.adopt(call.name, upload.path, expected))
    finally:
        upload.end()
        call.surface.uploads.drop(upload)
    return _created(call, expected)


def _created(call: Call, digest: str) -> web.Response:
    headers = {
        **API_VERSION,
        "Location": f"/v2/{call.name}/blobs/{digest}",
        "Docker-Content-Digest": digest,
    }
    return web.Response(status=201, headers=headers)


def _under_way(call: Call, upload: Upload, status: int) -> web.Response:
    return web.Response(status=status, headers={**API_VERSION, **_place(call, upload)})


def _place(call: Call, upload: Upload) -> dict[str, str]:
    """`0-0` also stands for nothing, as in Docker's registry."""
    return {
        "Location": f"/v2/{call.name}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }
