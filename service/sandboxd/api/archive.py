"""Files into and out of containers: `docker cp`, and what testcontainers copies before a start."""

from __future__ import annotations

import base64
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.container_root import opened_root
from sandboxd.api.replies import FRAME_HEADERS, empty_reply, encoded
from sandboxd.api.tree_archive import TreeArchive
from sandboxd.api.tree_extraction import TreeExtraction
from sandboxd.api.uploads import consume
from sandboxd.errors import BadRequest, Forbidden, NotFound
from sandboxd.images.compression import Decompressed
from sandboxd.images.tar import TarReader
from sandboxd.linux.openat2 import open_beneath
from sandboxd.threads import in_thread

STAT_HEADER = "X-Docker-Container-Path-Stat"
_BLOCK = 256 << 10
_GO_DIRECTORY, _GO_SYMLINK = 1 << 31, 1 << 27
"""Bits of Go's os.FileMode, which the CLI decodes."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file inside a container: the descriptor of its directory, its name and its stat."""

    parent: int
    name: str
    top: str
    """What the archive calls it."""
    status: os.stat_result


async def head(call: Call) -> web.StreamResponse:
    """HEAD /containers/{id}/archive?path: about the path, in a header."""
    async with _place(call) as place:
        headers = {STAT_HEADER: _described(place, call.query.text("path"))}
    return web.Response(headers={**FRAME_HEADERS, **headers})


async def get(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/archive?path: a tar archive; its first entry is the path's last name."""
    async with _place(call) as place:
        headers = {STAT_HEADER: _described(place, call.query.text("path"))}
        response = await call.begin("application/x-tar", headers)
        pieces = iter(TreeArchive(place.parent, place.name, place.top))
        while block := await in_thread(lambda: _block_of(pieces)):
            await response.write(block)
    return response


async def put(call: Call) -> web.StreamResponse:
    """PUT /containers/{id}/archive?path&noOverwriteDirNonDir: unpack the body in a directory."""
    container = call.engine.find(call.params["id"])
    path = _path(call)
    strict = call.query.flag("noOverwriteDirNonDir")
    async with opened_root(call.engine, container, path) as root:
        _check_directory(root, path, call.params["id"])
        if container.settings.host.readonly_rootfs and not container.running:
            raise Forbidden("container rootfs is marked read-only")

        def unpack(body: BinaryIO) -> None:
            archive = TarReader(Decompressed(body))
            TreeExtraction(root, path, strict=strict).extract(archive)

        await consume(call.request, unpack)
    return empty_reply(200)


def split(path: str) -> tuple[str, str, str]:
    """The directory to open, the name to look at in it, and what an archive calls that.

    The last component is not followed if it is a link, unless `/` or `/.` stands behind it.
    """
    clean = posixpath.normpath("/" + path.lstrip("/"))
    name = posixpath.basename(clean)
    if not name or path.endswith("/."):
        return clean, ".", "."
    if path.endswith("/"):
        return clean, ".", name
    return posixpath.dirname(clean), name, name


@asynccontextmanager
async def _place(call: Call) -> AsyncIterator[Place]:
    """What the query's path names. Raises NotFound when there is nothing."""
    path = _path(call)
    container = call.engine.find(call.params["id"])
    missing = NotFound(f"Could not find the file {path} in container {call.params['id']}")
    above, name, top = split(path)
    async with opened_root(call.engine, container, path) as root:
        try:
            parent = open_beneath(root, above, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise missing from None
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            yield Place(parent, name, top, status)
        except FileNotFoundError:
            raise missing from None
        finally:
            os.close(parent)


def _block_of(pieces: Iterator[bytes]) -> bytes:
    """Pieces enough to be worth a thread's while; empty at the end."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= _BLOCK:
            break
    return bytes(block)


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path:
        raise BadRequest("bad parameter: missing path")
    return path


def _check_directory(root: int, path: str, container: str) -> None:
    try:
        os.close(open_beneath(root, path, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        what = f"Could not find the file {path} in container {container}"
        raise NotFound(what) from None
    except NotADirectoryError:
        raise BadRequest(f"extraction point {path} is not a directory") from None


def _described(place: Place, path: str) -> str:
    """The path's stat as base64 of JSON."""
    status, target = place.status, ""
    if stat.S_ISLNK(status.st_mode):
        link = os.readlink(place.name, dir_fd=place.parent)
        target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), link))
    mtime = datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z")
    about = {
        "name": posixpath.basename(path.rstrip("/")) or "/",
        "size": status.st_size,
        "mode": _go_mode(status.st_mode),
        "mtime": mtime,
        "linkTarget": target,
    }
    return base64.b64encode(encoded(about)).decode()


def _go_mode(mode: int) -> int:
    bits = mode & 0o777
    if stat.S_ISDIR(mode):
        bits |= _GO_DIRECTORY
    if stat.S_ISLNK(mode):
        bits |= _GO_SYMLINK
    return bits
