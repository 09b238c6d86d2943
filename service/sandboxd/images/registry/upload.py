"""Blobs into a repository, in the order of what costs least.

Already there (HEAD), mounted from another repository of the registry, sent in one request, and in
chunks where a registry or a proxy before it takes no body of that size (413), picked up where they
were left after a failure. OCI distribution specification, "Push".
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from sandboxd.errors import Forbidden, NotFound, RegistryError, SandboxError
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.connection import Response
from sandboxd.images.registry.manifests import Descriptor, Manifest

Tell = Callable[[int], None]
"""Told how many bytes of the blob have been sent so far. It may raise to end the upload."""

CHUNK: Final = 64 << 20
_CHUNK_MIN: Final = 1 << 20
_TOO_LARGE: Final = 413
_NOT_IN_ONE: Final = (_TOO_LARGE, 405, 411, 416)
_FAILURES_MAX: Final = 4
_OCTETS: Final = {"Content-Type": "application/octet-stream"}


class Uploader:
    """Uploads over one client, which was made with `push`. For one thread."""

    def __init__(self, client: RegistryClient, *, chunk: int = CHUNK) -> None:
        self._client, self._chunk = client, chunk

    def has(self, digest: str, size: int) -> bool:
        """Whether the repository has the blob already; a registry that does not say has not."""
        try:
            with self._client.request("HEAD", f"blobs/{digest}", expect=(200, 404)) as response:
                length = response.headers.get("content-length", "")
                return response.status == 200 and length in ("", str(size))
        except (NotFound, Forbidden):
            return False

    def mount(self, digest: str, repositories: Sequence[str]) -> str | None:
        """Have the blob taken from the first of `repositories` that has it; the one, or None.

        A registry that refuses, perhaps since the other repository is somebody else's, is not
        asked for more than that.
        """
        for repository in repositories:
            query = urlencode({"mount": digest, "from": repository})
            try:
                with self._client.request(
                    "POST", f"blobs/uploads/?{query}", body=b"", expect=(201, 202)
                ) as response:
                    if response.status == 201:
                        return repository
                    self._abandon(response)
            except (NotFound, Forbidden, RegistryError):
                continue
        return None

    def send(self, blob: Descriptor, file: BinaryIO, tell: Tell) -> None:
        """Upload the blob, which `file` holds from its beginning.

        Raises Forbidden, RegistryError; what was sent in vain is the registry's to throw away.
        """
        if blob.size > self._chunk * 32 or not self._sent_in_one(blob, file, tell):
            self._send_chunks(blob, file, tell)

    def put_manifest(self, manifest: Manifest, which: str) -> None:
        """Store a manifest under a tag or its digest. Raises RegistryError."""
        headers = {"Content-Type": manifest.media_type}
        with self._client.request(
            "PUT", f"manifests/{which}", headers=headers, body=manifest.raw, expect=(201, 202, 200)
        ) as response:
            digest = response.headers.get("docker-content-digest", manifest.digest)
            if digest != manifest.digest:
                why = f"it stored the manifest as {digest}, not as {manifest.digest}"
                raise RegistryError(f"registry {self._client.reference.domain}", why)

    def _started(self) -> tuple[str, Response]:
        with self._client.request("POST", "blobs/uploads/", body=b"", expect=(202,)) as response:
            return self._location(response), response

    def _sent_in_one(self, blob: Descriptor, file: BinaryIO, tell: Tell) -> bool:
        """False where the registry wants less at once."""
        location, _ = self._started()
        body = cast(BinaryIO, _Part(file, 0, blob.size, tell))
        with self._client.request(
            "PUT",
            _with_digest(location, blob.digest),
            headers=_OCTETS,
            body=body,
            size=blob.size,
            expect=(201, 204, *_NOT_IN_ONE),
        ) as response:
            if response.status in (201, 204):
                return True
        self._cancel(location)
        return False

    def _send_chunks(self, blob: Descriptor, file: BinaryIO, tell: Tell) -> None:
        location, response = self._started()
        least = _number(response.headers.get("oci-chunk-min-length", ""), _CHUNK_MIN)
        size, sent, failures = max(self._chunk, least), 0, 0
        while sent < blob.size:
            count = min(size, blob.size - sent)
            try:
                status, location = self._chunk_sent(location, file, sent, count, tell)
            except RegistryError:
                failures += 1
                if failures > _FAILURES_MAX:
                    raise
                location, sent = self._resumed(location)
                continue
            if status == _TOO_LARGE:
                if size <= least:
                    what = f"registry {self._client.reference.domain}"
                    why = f"it refuses {count} bytes at once (413)"
                    raise RegistryError(what, why, "raise the limit of the proxy before it")
                size = max(size // 4, least)
                continue
            sent += count
        with self._client.request(
            "PUT", _with_digest(location, blob.digest), body=b"", expect=(201, 204)
        ):
            return

    def _chunk_sent(
        self, location: str, file: BinaryIO, sent: int, count: int, tell: Tell
    ) -> tuple[int, str]:
        """The status, 413 included, and where to go on."""
        headers = {**_OCTETS, "Content-Range": f"{sent}-{sent + count - 1}"}
        with self._client.request(
            "PATCH",
            location,
            headers=headers,
            body=cast(BinaryIO, _Part(file, sent, count, tell)),
            size=count,
            expect=(202, 204, _TOO_LARGE),
        ) as response:
            if response.status == _TOO_LARGE:
                return response.status, location
            return response.status, self._location(response)

    def _resumed(self, location: str) -> tuple[str, int]:
        """Where an upload that was cut off goes on, and how many bytes of it are there."""
        with self._client.request("GET", location, expect=(204, 202)) as response:
            last = response.headers.get("range", "").rpartition("-")[2]
            return self._location(response, location), int(last) + 1 if last.isdigit() else 0

    def _location(self, response: Response, known: str = "") -> str:
        found = response.headers.get("location", known)
        if not found:
            what = f"registry {self._client.reference.domain}"
            raise RegistryError(what, "it began an upload without saying where")
        return found

    def _abandon(self, response: Response) -> None:
        """End an upload that a mount has become and that nobody needs."""
        if location := response.headers.get("location"):
            self._cancel(location)

    def _cancel(self, location: str) -> None:
        try:
            with self._client.request("DELETE", location, expect=(204, 202, 404, 405)):
                return
        except SandboxError:
            return  # the registry throws unfinished uploads away by itself


class _Part(io.RawIOBase):
    """`size` bytes of a file from `start` on, as a request's body that can be sent again."""

    def __init__(self, file: BinaryIO, start: int, size: int, tell: Tell) -> None:
        super().__init__()
        self._file, self._start, self._size, self._tell = file, start, size, tell
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, min(base + offset, self._size))
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self._at
        count = left if size < 0 else min(size, left)
        if count == 0:
            return b""
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        self._at += len(data)
        self._tell(self._start + self._at)
        return data


def _with_digest(location: str, digest: str) -> str:
    """The location's own query, untouched, and the digest."""
    parts = urlsplit(location)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}digest={quote(digest, safe='')}"))


def _number(text: str, least: int) -> int:
    return max(int(text), least) if text.isascii() and text.isdigit() and len(text) < 12 else least
