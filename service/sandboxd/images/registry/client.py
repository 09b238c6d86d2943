"""A client for one repository: the OCI distribution specification over its registry's endpoints.

What is read by digest is asked of the mirrors first, then of the registry; a mirror that fails, or
answers with something else than the digest says, is passed over. Everything else goes to the
registry itself. Blocking; one thread for each client.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NamedTuple, Self

from sandboxd.errors import (
    BadRequest,
    Forbidden,
    NoSuchImage,
    NotFound,
    RegistryError,
    SandboxError,
)
from sandboxd.images.reference import Reference
from sandboxd.images.registry.connection import Response, joined
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.manifests import MANIFEST_TYPES, Manifest
from sandboxd.images.registry.origin import Origin
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.store.digests import digest_of, hex_of, is_digest

__all__ = ["RegistryClient", "Response"]

_log = logging.getLogger("sandboxd.images")
_MANIFEST_MAX: Final = 4 << 20
_DETAIL_MAX: Final = 300
_LOOK: Final = 0.1
"""Seconds between looks whether requests were given up."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_PLAIN_TO_TLS: Final = "HTTP request to an HTTPS server"


class Partial(NamedTuple):
    """A blob's answer, and the offset at which it really begins."""

    response: Response
    offset: int


class RegistryClient:
    """`push` asks for tokens that allow it, and leaves mirrors alone; `also_pull` are other
    repositories of the registry that blobs may be mounted from."""

    def __init__(
        self,
        reference: Reference,
        settings: RegistrySettings,
        credentials: Credentials | None,
        *,
        push: bool = False,
        also_pull: Sequence[str] = (),
    ) -> None:
        self.reference = reference
        actions = "pull,push" if push else "pull"
        scopes = (
            f"repository:{reference.path}:{actions}",
            *(f"repository:{path}:pull" for path in also_pull),
        )
        endpoints = settings.endpoints(reference.domain)
        self._origins = tuple(
            Origin(each, settings.network, None if each.is_mirror else credentials, scopes)
            for each in endpoints
            if not (push and each.is_mirror)
        )
        self._push = push
        self._logged_in = credentials is not None

    @property
    def has_mirrors(self) -> bool:
        return len(self._origins) > 1

    def use_registry_only(self) -> None:
        """Leave the mirrors alone from here on: one of them has lied."""
        for origin in self._origins[:-1]:
            origin.close()
        self._origins = self._origins[-1:]

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
        size: int | None = None,
        expect: Container[int] = (200,),
    ) -> Response:
        """One request to the registry itself.

        `path` is below `/v2/REPOSITORY/`, or a URL or absolute path that the registry has named,
        which gets the credentials only if it is on the registry's own server. `size` is that of a
        body that is a file; one that cannot seek is sent once. Raises Forbidden, NotFound,
        RegistryError for a status that is not in `expect`.
        """
        return self._asked(self._origins[-1], method, path, headers or {}, expect, body, size)

    def manifest(self, which: str) -> Manifest:
        """The manifest or index of a tag or digest, of which a digest is verified.

        Raises NoSuchImage, Forbidden, RegistryError, BadRequest for a document that is none.
        """
        path = f"manifests/{which}"
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        for origin in self._origins[:-1]:
            try:
                return self._manifest(origin, path, headers, which)
            except SandboxError as error:
                _log.info("mirror %s: %s", origin.endpoint.url, error)
        return self._manifest(self._origins[-1], path, headers, which)

    def head_manifest(self, which: str) -> tuple[str, str, int] | None:
        """Media type, digest and size, None where there is no such manifest; from the registry."""
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        with self.request(
            "HEAD", f"manifests/{which}", headers=headers, expect=(200, 404)
        ) as response:
            digest = response.headers.get("docker-content-digest", "")
            if response.status == 404 or not is_digest(digest):
                return None
            length = response.headers.get("content-length", "")
            media_type = response.headers.get("content-type", "")
            return media_type, digest, int(length) if length.isdigit() else -1

    def blob(self, digest: str, size: int, offset: int = 0) -> Response:
        """A blob's bytes from `offset` on; the caller verifies them. Raises RegistryError."""
        found = self.partial_blob(digest, size, offset)
        try:
            left = offset - found.offset
            while left:
                piece = found.response.read(min(left, 1 << 18))
                if not piece:
                    raise RegistryError(f"blob {digest}", "it ends too early")
                left -= len(piece)
        except OSError as error:
            found.response.close()
            raise RegistryError(f"blob {digest}", str(error)) from error
        return found.response

    def partial_blob(self, digest: str, size: int, offset: int = 0) -> Partial:
        """Like `blob`, but a server that knows no ranges begins at the beginning."""
        hex_of(digest)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        for origin in self._origins[:-1]:
            try:
                return self._blob(origin, digest, size, offset, headers)
            except SandboxError as error:
                _log.info("mirror %s: %s", origin.endpoint.url, error)
        return self._blob(self._origins[-1], digest, size, offset, headers)

    def close(self) -> None:
        for origin in self._origins:
            origin.close()

    @contextmanager
    def abortable(self, cancelled: threading.Event) -> Iterator[None]:
        """While the block runs, requests end with Unavailable when `cancelled` is set, also those
        that wait for a server that says nothing."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK):
                if cancelled.is_set():
                    for origin in self._origins:
                        origin.abort()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # what workers get, so that they need no tokens of their own

    @property
    def authorizations(self) -> list[str | None]:
        """The headers that the origins accepted last, in the order of the endpoints."""
        return [origin.authenticator.header for origin in self._origins]

    def adopt(self, authorizations: Sequence[str | None]) -> None:
        for origin, header in zip(self._origins, authorizations, strict=False):
            origin.authenticator.header = header

    def _manifest(
        self, origin: Origin, path: str, headers: Mapping[str, str], which: str
    ) -> Manifest:
        with self._asked(origin, "GET", path, headers, (200,)) as response:
            try:
                raw = response.body(_MANIFEST_MAX)
            except OSError as error:
                raise RegistryError(self._name, f"manifest {which}: {error}") from error
        if ":" in which and digest_of(raw) != which:
            why = f"manifest {which} has the digest {digest_of(raw)}"
            raise RegistryError(self._name, why)
        return Manifest.parse(raw, response.headers.get("content-type", ""))

    def _blob(
        self, origin: Origin, digest: str, size: int, offset: int, headers: Mapping[str, str]
    ) -> Partial:
        response = self._asked(origin, "GET", f"blobs/{digest}", headers, (200, 206))
        try:
            begins = _beginning(response, size, offset)
        except ValueError as error:
            response.close()
            raise RegistryError(f"blob {digest}", str(error)) from error
        return Partial(response, begins)

    def _asked(
        self,
        origin: Origin,
        method: str,
        path: str,
        headers: Mapping[str, str],
        expect: Container[int],
        body: bytes | BinaryIO | None = None,
        size: int | None = None,
    ) -> Response:
        url = joined(f"{origin.endpoint.url}/v2/{self.reference.path}/", path)
        response = origin.request(method, url, headers, body, size)
        if response.status in expect:
            return response
        detail = "" if method == "HEAD" else _detail(response)
        response.close()
        raise self._refusal(origin, response, path, detail)

    def _refusal(self, origin: Origin, response: Response, path: str, detail: str) -> SandboxError:
        domain, status = origin.endpoint.domain, response.status
        name = self.reference.name
        if status in (401, 403):
            return self._denial(domain, detail)
        if status == 404 and path.startswith("manifests/"):
            why = detail or "manifest unknown"
            return NoSuchImage(f"manifest for {self.reference} not found", why)
        if status == 404 and not path.startswith("blobs/sha256:"):
            return NotFound(f"{name} in {self._name}", detail or "not found")
        if status == 429:
            mend = f"wait a while, or docker login {domain}"
            return RegistryError(self._name, f"too many requests: {detail}", mend)
        if status == 400 and _PLAIN_TO_TLS in detail:
            mend = f'write in registries.toml: [registry."{domain}"] plain-http = false'
            return RegistryError(self._name, "it wants TLS", mend)
        why = f"status {status} for {path[:100]}" + (f": {detail}" if detail else "")
        return RegistryError(self._name, why)

    def _denial(self, domain: str, detail: str) -> SandboxError:
        action, name = "push" if self._push else "pull", self.reference.name
        mend = f"docker login {domain}"
        if self._push:
            what = f"push access denied for {name}"
            return Forbidden(what, detail or "requested access to the resource is denied", mend)
        what = f"{action} access denied for {name}"
        why = "repository does not exist or may require 'docker login'"
        why = f"{why}: {detail}" if detail else why
        if self._logged_in:
            return Forbidden(what, why, mend)
        return NoSuchImage(f"{what}, {why}", mend=mend)

    @property
    def _name(self) -> str:
        return f"registry {self.reference.domain}"


def _beginning(response: Response, size: int, offset: int) -> int:
    """The offset at which the body begins. ValueError where headers contradict what is known."""
    length = response.headers.get("content-length", "")
    if response.status == 200:
        if length.isdigit() and int(length) != size:
            raise ValueError(f"{length} bytes long, {size} were promised")
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None:
        raise ValueError("a part of it, which says not which")
    first, last = int(match[1]), int(match[2])
    if first != offset or last != size - 1 or match[3] not in ("*", str(size)):
        raise ValueError(f"bytes {offset}-{size - 1} were asked for, {match[0]} came")
    if length.isdigit() and int(length) != size - offset:
        raise ValueError(f"a part of {length} bytes, {size - offset} were promised")
    return first


def _detail(response: Response) -> str:
    """What the answer says, in one line of printable characters: the specification's errors."""
    try:
        body = response.body(1 << 16)
    except (OSError, BadRequest):
        return ""
    text = body.decode(errors="replace")
    try:
        errors: Any = json.loads(body).get("errors")
        text = "; ".join(
            f"{each.get('code', '')}: {each.get('message', '')}".lower() for each in errors
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:_DETAIL_MAX]
