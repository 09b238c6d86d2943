"""Digests: their grammar, and hashing while bytes pass by.

A digest turns into a path, so nothing becomes one without `hex_of` (CVE-2024-3727). Only sha256 is
written and accepted: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Protocol

from sandboxd.errors import BadRequest

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


class Reader(Protocol):
    """What a stream must have: `read` of at most `size` bytes, empty at the end."""

    def read(self, size: int, /) -> bytes: ...


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of `sha256:…`. Raises BadRequest for anything else."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadRequest(
            f"invalid digest {digest[:100]!r}", "sha256:<64 hexadecimal digits> expected"
        )
    return match[1]


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class HashingReader:
    """Passes a stream through and keeps its digest and length in bytes."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"
