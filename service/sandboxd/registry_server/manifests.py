"""Manifests, tags and referrers: pulled, pushed, listed, deleted.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md. A manifest is accepted when
all that it names is in the repository, but for the manifest that it is about (`subject`) and for
layers that lie elsewhere (`urls`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from sandboxd.errors import BadRequest, NotFound
from sandboxd.images.documents import SIZE_MAX
from sandboxd.images.registry.manifests import OCI_INDEX, Descriptor, Manifest
from sandboxd.registry_server.call import Call
from sandboxd.registry_server.faults import (
    API_VERSION,
    Fault,
    manifest_invalid,
    manifest_unknown,
    name_unknown,
    unsupported,
)
from sandboxd.registry_server.local_images import LocalManifest
from sandboxd.registry_server.repositories import Pushed
from sandboxd.registry_server.routes import is_tag
from sandboxd.threads import in_thread

_PAGE_MAX: Final = 1000
_TAGS_MAX: Final = 32
_REFERRERS_MAX: Final = 3 << 20
"""Bytes of one page of referrers: an index has to stay below 4 MiB."""


async def get(call: Call) -> web.StreamResponse:
    """GET and HEAD /v2/NAME/manifests/TAG-OR-DIGEST"""
    found = await in_thread(lambda: _find(call))
    if found is None:
        raise manifest_unknown(call.name, call.which)
    digest, media_type, raw = found
    headers = {
        **API_VERSION,
        "Content-Type": media_type,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
    }
    if call.request.method == "HEAD":
        headers["Content-Length"] = str(len(raw))
        return web.Response(headers=headers)
    return web.Response(body=raw, headers=headers)


async def put(call: Call) -> web.StreamResponse:
    """PUT /v2/NAME/manifests/TAG-OR-DIGEST"""
    tags = _asked_tags(call)
    raw = await _body(call)
    manifest = _parsed(call, raw)
    if not is_tag(call.which) and call.which != manifest.digest:
        why = f"the manifest's digest is {manifest.digest}, {call.which} was promised"
        raise Fault(400, "DIGEST_INVALID", why)
    pushed = _pushed(manifest)
    await in_thread(lambda: _keep(call, manifest, pushed, tags))
    headers = {
        **API_VERSION,
        "Location": f"/v2/{call.name}/manifests/{manifest.digest}",
        "Docker-Content-Digest": manifest.digest,
    }
    if pushed.subject:
        headers["OCI-Subject"] = pushed.subject
    if not is_tag(call.which) and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return web.Response(status=201, headers=headers)


async def delete(call: Call) -> web.StreamResponse:
    """DELETE /v2/NAME/manifests/TAG-OR-DIGEST: a tag alone, or a manifest with all its tags."""
    repositories = call.surface.repositories
    remove = repositories.delete_tag if is_tag(call.which) else repositories.delete_manifest
    if not await in_thread(lambda: remove(call.name, call.which)):
        if await in_thread(lambda: call.surface.local.manifest(call.name, call.which)):
            what = f"{call.name}:{call.which} is a local image of this store"
            raise unsupported(what, "sandboxctl image rm")
        raise manifest_unknown(call.name, call.which)
    return web.Response(status=202, headers=API_VERSION)


async def tags(call: Call) -> web.StreamResponse:
    """GET /v2/NAME/tags/list?n=COUNT&last=TAG"""

    def listed() -> tuple[bool, list[str]]:
        repositories, local = call.surface.repositories, call.surface.local
        found = {*repositories.tags(call.name), *local.tags(call.name)}
        return bool(found) or repositories.exists(call.name), sorted(found)

    exists, found = await in_thread(listed)
    if not exists:
        raise name_unknown(call.name)
    page, headers = _page(call, found, f"/v2/{call.name}/tags/list")
    return web.json_response({"name": call.name, "tags": page}, headers=headers)


async def catalog(call: Call) -> web.StreamResponse:
    """GET /v2/_catalog?n=COUNT&last=NAME: Docker's, beside the specification."""

    def listed() -> list[str]:
        return sorted({*call.surface.repositories.names(), *call.surface.local.names()})

    page, headers = _page(call, await in_thread(listed), "/v2/_catalog")
    return web.json_response({"repositories": page}, headers=headers)


async def referrers(call: Call) -> web.StreamResponse:
    """GET /v2/NAME/referrers/DIGEST?artifactType=TYPE: an index of what is about the manifest."""
    repositories = call.surface.repositories
    found = await in_thread(lambda: repositories.referrers(call.name, call.which))
    headers = {**API_VERSION, "Content-Type": OCI_INDEX}
    if wanted := call.query("artifactType"):
        found = [each for each in found if each.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    page = _referrers_page(found, call.query("last") or "")
    if page and page[-1] is not found[-1]:
        query = {"last": page[-1]["digest"], **({"artifactType": wanted} if wanted else {})}
        place = f"/v2/{call.name}/referrers/{call.which}?{urlencode(query)}"
        headers["Link"] = f'<{place}>; rel="next"'
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
    return web.Response(body=json.dumps(index).encode(), headers=headers)


def _find(call: Call) -> tuple[str, str, bytes] | None:
    """Digest, media type and bytes; what was pushed comes before a local image of that name."""
    found: Pushed | LocalManifest | None
    found = call.surface.repositories.manifest(call.name, call.which)
    if found is not None:
        try:
            with call.surface.store.blobs.open(found.digest) as blob:
                return found.digest, found.media_type, blob.read()
        except NotFound:
            return None
    found = call.surface.local.manifest(call.name, call.which)
    return None if found is None else (found.digest, found.media_type, found.raw)


def _asked_tags(call: Call) -> Sequence[str]:
    if is_tag(call.which):
        return (call.which,)
    asked = list(dict.fromkeys(call.queries("tag")))
    if len(asked) > _TAGS_MAX:
        raise Fault(414, "UNSUPPORTED", f"more than {_TAGS_MAX} tags at once")
    for tag in asked:
        if not is_tag(tag):
            raise Fault(400, "TAG_INVALID", f"invalid tag {tag[:140]!r}")
    return asked


async def _body(call: Call) -> bytes:
    try:
        # A manifest is small: one that takes a minute is not on its way.
        async with asyncio.timeout(call.surface.stall):
            return b"".join([piece async for piece in call.pieces(SIZE_MAX)])
    except TimeoutError:
        raise Fault(408, "MANIFEST_INVALID", "the manifest took too long") from None
    except Fault as fault:
        raise Fault(fault.status, "MANIFEST_INVALID", fault.message) from None


def _parsed(call: Call, raw: bytes) -> Manifest:
    said = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    try:
        manifest = Manifest.parse(raw, said)
        list(_descriptors(manifest))
    except BadRequest as error:
        raise manifest_invalid(error.why) from None
    own = manifest.document.get("mediaType")
    if own and own != manifest.media_type:
        raise manifest_invalid(f"no manifest of a known kind: {str(own)[:100]}")
    if own and said and own != said:
        raise manifest_invalid(f"it says to be {own[:100]}, its Content-Type says {said[:100]}")
    return manifest


def _descriptors(manifest: Manifest) -> Iterator[Descriptor]:
    """What must be in the repository for the manifest to be whole."""
    if manifest.is_index:
        yield from manifest.manifests
        return
    yield manifest.config
    elsewhere = {
        str(layer.get("digest"))
        for layer in manifest.document.get("layers") or ()
        if isinstance(layer, dict) and layer.get("urls")
    }
    yield from (layer for layer in manifest.layers if layer.digest not in elsewhere)


def _pushed(manifest: Manifest) -> Pushed:
    """With the descriptor that the list of referrers shows: specification, "Listing Referrers"."""
    try:
        subject = manifest.subject
        kind = manifest.artifact_type
        if not kind and not manifest.is_index:
            kind = manifest.config.media_type
        size = len(manifest.raw)
        annotations = manifest.annotations
    except BadRequest as error:
        raise manifest_invalid(error.why) from None
    about = Descriptor(manifest.media_type, manifest.digest, size, annotations, None, kind)
    return Pushed(
        manifest.digest,
        manifest.media_type,
        about.to_document() if subject else {},
        subject.digest if subject else "",
        tuple(dict.fromkeys(each.digest for each in _descriptors(manifest))),
    )


def _keep(call: Call, manifest: Manifest, pushed: Pushed, tags: Sequence[str]) -> None:
    """Raises Fault for the first thing that the manifest names and the repository lacks."""
    repositories = call.surface.repositories
    for each in _descriptors(manifest):
        if manifest.is_index:
            there = repositories.manifest(call.name, each.digest) is not None
        else:
            there = repositories.has_blob(call.name, each.digest)
        size = _size(call, each.digest) if there else None
        if size is None:
            what = f"{each.digest} is not in the repository {call.name}: push it first"
            raise Fault(400, "MANIFEST_BLOB_UNKNOWN", what)
        if size != each.size:
            raise manifest_invalid(f"{each.digest} has {size} bytes, not {each.size}")
    repositories.put_manifest(call.name, pushed, BytesIO(manifest.raw), tags)


def _size(call: Call, digest: str) -> int | None:
    try:
        return call.surface.store.blobs.stat(digest).size
    except NotFound:
        return None


def _page(call: Call, names: Sequence[str], path: str) -> tuple[list[str], dict[str, str]]:
    """The names after `last`, `n` of them, and the Link to what follows."""
    count, last = call.count("n"), call.query("last")
    rest = [name for name in names if last is None or name > last]
    size = _PAGE_MAX if count is None else min(count, _PAGE_MAX)
    page, headers = rest[:size], dict(API_VERSION)
    if page and len(rest) > size:
        query = urlencode({"n": size, "last": page[-1]})
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return page, headers


def _referrers_page(found: Sequence[dict[str, Any]], last: str) -> list[dict[str, Any]]:
    page: list[dict[str, Any]] = []
    size = 0
    for each in found:
        if each["digest"] <= last:
            continue
        size += len(json.dumps(each))
        if page and size > _REFERRERS_MAX:
            break
        page.append(each)
    return page
