"""Builds: of a tar archive that a Docker client sends, or of a directory where it lies."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from aiohttp import ClientPayloadError, web

from sandboxd.api.bodies import BUILD
from sandboxd.api.call import EXTENSION_BODY_LIMIT, Call
from sandboxd.api.extension import base64_bytes
from sandboxd.api.replies import json_reply, message_line
from sandboxd.api.uploads import consume
from sandboxd.errors import BadRequest, BuildFailed, CannotEnforce, SandboxError
from sandboxd.threads import in_thread

if TYPE_CHECKING:
    from sandboxd.images import Image
    from sandboxd.images.build.context import Context
    from sandboxd.images.build.options import BuildOptions, Report
    from sandboxd.images.registry.credentials import Credentials

_PRUNE_FILTERS: Final = frozenset(("id", "parent", "type", "until", "unused-for", "private"))
_HUB: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HEAD_MAX: Final = 16 << 20
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_UNLIMITED: Final = (
    "memory",
    "memswap",
    "cpushares",
    "cpuquota",
    "cpuperiod",
    "cpusetcpus",
    "cpusetmems",
    "cgroupparent",
    "ulimits",
    "extrahosts",
    "squash",
    "outputs",
)
_NOTHING: Final = frozenset(("", "0", "-1", "null", "[]", "{}", "false"))


async def build(call: Call) -> web.StreamResponse:
    """POST /build: the body is the context, as docker's classic builder takes it."""
    from sandboxd.images.build.context import Context, unpack_context

    query, store = call.query, call.engine.store
    if query.text("version") == "2":
        why = "there is no BuildKit here"
        raise CannotEnforce("a BuildKit build", why, "DOCKER_BUILDKIT=0, or sandboxctl build")
    if query.text("remote") not in ("", "client-session"):
        why = "the context is what the request's body holds"
        raise CannotEnforce(f"remote={query.text('remote')}", why, "git clone, docker build .")
    for name in _UNLIMITED:
        if query.text(name).strip().lower() not in _NOTHING:
            raise CannotEnforce(f"{name}={query.text(name)}", "a build step has no such setting")
    options = _queried_options(call)
    with store.staging("build") as staged:
        head = await _head(call.request)
        name = query.text("dockerfile")

        def opened(rest: BinaryIO) -> Context:
            root = unpack_context(_Joined(head, rest), staged, store.idmap)
            return Context.open(root, name, is_lasting=False)

        context = await consume(call.request, opened)
        return await _streamed(call, context, options, quiet=query.flag("q"))


async def build_directory(call: Call) -> web.StreamResponse:
    """POST /sandbox/build: a directory of this machine's, read where it lies."""
    from sandboxd.images.build.context import Context
    from sandboxd.images.build.options import BuildOptions

    body = await call.body(BUILD, limit=EXTENSION_BODY_LIMIT)
    directory, text = body.get("Context", ""), body.get("DockerfileText")
    if not directory.startswith("/"):
        raise BadRequest(f"build context {directory!r}", "an absolute path is needed")
    options = BuildOptions(
        names=_names(body.get("Tags", [])),
        target=body.get("Target", ""),
        platform=body.get("Platform", ""),
        arguments=body.get("BuildArgs", {}),
        labels=body.get("Labels", {}),
        secrets={
            id: base64_bytes(value or "", f"Secrets[{id}]")
            for id, value in body.get("Secrets", {}).items()
        },
        network=body.get("Network", ""),
        no_cache=body.get("NoCache", False),
        pull=body.get("Pull", False),
        credentials=_credentials(call),
    )
    read = partial(
        Context.open,
        Path(directory),
        body.get("Dockerfile", ""),
        text=None if text is None else text.encode(errors="surrogateescape"),
    )
    context = await in_thread(read)
    return await _streamed(call, context, options)


async def prune(call: Call) -> web.StreamResponse:
    """POST /build/prune: `docker builder prune`, and part of `docker system prune`."""
    filters = call.query.filters(_PRUNE_FILTERS)
    until = [*filters.pop("until", []), *filters.pop("unused-for", [])]
    if filters:
        raise CannotEnforce(f"filter {next(iter(filters))}", "the cache has no such property")
    unused_for = max(map(_seconds, until), default=0.0)
    keys, size = await in_thread(partial(call.engine.builds.prune, unused_for))
    return json_reply({"CachesDeleted": keys or None, "SpaceReclaimed": size})


async def _head(request: web.BaseRequest) -> bytes:
    """The body, or the beginning of a big one: most contexts are small, and a thread that waits for
    each piece of them would wait longer than it works."""
    pieces, size = [], 0
    try:
        while size < _HEAD_MAX and (piece := await request.content.readany()):
            pieces.append(piece)
            size += len(piece)
    except (web.RequestPayloadError, ClientPayloadError, ConnectionError) as error:
        raise BadRequest("the upload broke off", str(error)) from error
    return b"".join(pieces)


class _Joined:
    """What was read already, then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def read(self, size: int, /) -> bytes:
        return self._head.read(size) or self._rest.read(size)


async def _streamed(
    call: Call, context: Context, options: BuildOptions, *, quiet: bool = False
) -> web.StreamResponse:
    """The build's progress as it goes; the head goes out with the first of it.

    When the client leaves, the build is ended and waited for.
    """
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def report(entry: dict[str, Any]) -> None:
        if not quiet:
            told.put_nowait(entry)

    building = asyncio.ensure_future(_built(call, context, options, report))
    building.add_done_callback(lambda _: told.put_nowait(None))
    response: web.StreamResponse | None = None
    try:
        while (entry := await told.get()) is not None:
            lines = [message_line(entry)]
            while not told.empty() and (entry := told.get_nowait()) is not None:
                lines.append(message_line(entry))
            response = response or await call.begin("application/json")
            await response.write(b"".join(lines))
            if entry is None:
                break
        image = await building
    except SandboxError as error:
        if response is None:
            raise
        await response.write(_error_line(error))
        return response
    finally:
        if not building.done():
            building.cancel()
            await asyncio.wait([building])
    response = response or await call.begin("application/json")
    if quiet:
        await response.write(message_line({"stream": f"{image.id}\n"}))
    return response


async def _built(call: Call, context: Context, options: BuildOptions, report: Report) -> Image:
    image = await call.engine.builds.build(context, options, report)
    for name in options.names:
        call.engine.events.publish("image", "tag", image.id, {"name": name.tagged})
    return image


def _error_line(error: SandboxError) -> bytes:
    """docker ends with the code, so a failing command's own code becomes its exit status."""
    code = error.exit_code if isinstance(error, BuildFailed) else 1
    detail = {"code": code, "message": error.message}
    return message_line({**error.to_wire(), "errorDetail": detail, "error": error.message})


def _queried_options(call: Call) -> BuildOptions:
    from sandboxd.images.build.options import BuildOptions

    query = call.query
    return BuildOptions(
        names=_names(query.texts("t")),
        target=query.text("target"),
        platform=query.text("platform"),
        arguments=_object(query.text("buildargs"), "buildargs"),
        labels={key: value or "" for key, value in _object(query.text("labels"), "labels").items()},
        network=query.text("networkmode"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        credentials=_credentials(call),
    )


def _names(texts: list[str]) -> Any:
    from sandboxd.images.image import HOST
    from sandboxd.images.reference import Reference

    names = tuple(Reference.parse(text) for text in texts if text)
    for name in names:
        if name.digest:
            raise BadRequest("refusing to create a tag with a digest reference")
        if name.name == HOST:
            raise BadRequest(f"image name {HOST}", "it stands for this machine's own root")
    return names


def _object(text: str, name: str) -> dict[str, str | None]:
    """A JSON object of texts, null for a name without a value."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"invalid value of {name}", f"it is not JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(
        each is None or isinstance(each, str) for each in value.values()
    ):
        raise BadRequest(f"invalid value of {name}", "it is not an object of strings")
    if any("\0" in f"{key}{each}" for key, each in value.items()):
        raise BadRequest(f"invalid value of {name}", "it holds a NUL character")
    return value


def _credentials(call: Call) -> Callable[[str], Credentials | None]:
    """X-Registry-Config: base64 of JSON, an AuthConfig for each registry."""
    from sandboxd.images.registry.credentials import from_document

    configs = _registry_config(call.request.headers.get("X-Registry-Config", ""))

    def find(domain: str) -> Credentials | None:
        for key in (domain, f"https://{domain}", *(_HUB if domain == "docker.io" else ())):
            if key in configs:
                return from_document(configs[key])
        return None

    return find


def _registry_config(header: str) -> Mapping[str, Any]:
    if not header.strip():
        return {}
    padded = header.strip() + "=" * (-len(header.strip()) % 4)
    try:
        value = json.loads(base64.b64decode(padded.replace("-", "+").replace("_", "/")))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise BadRequest("invalid X-Registry-Config header", "no base64 of JSON") from error
    if not isinstance(value, dict):
        raise BadRequest("invalid X-Registry-Config header", "not a JSON object")
    return value


def _seconds(text: str) -> float:
    """`24h`, `30m` or a number of seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        return float(number) * _UNITS[unit]
    except ValueError as error:
        raise BadRequest(f"invalid filter 'until={text}'", "a duration such as 24h") from error
