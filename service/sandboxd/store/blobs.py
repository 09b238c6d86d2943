"""Blobs by digest: put, adopt, open, stat, delete and nothing else.

A blob is complete and has the content that its name says, or it is not there: `put` writes into
staging while it hashes, compares, writes back, and only then renames. Two writers of one blob both
succeed; the later rename replaces equal content. Nothing here defends against a user who edits the
state root by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sandboxd.errors import BadRequest, NotFound, SandboxError
from sandboxd.store.digests import HashingReader, Reader, hex_of
from sandboxd.store.durable import sync_directory

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob: its digest and its size in bytes."""

    digest: str
    size: int


class Blobs:
    def __init__(
        self, directory: Path, staging: Callable[[str], AbstractContextManager[Path]]
    ) -> None:
        self._directory, self._staging = directory, staging

    def put(self, stream: Reader, *, digest: str | None = None, size: int | None = None) -> Blob:
        """Store a stream to its end.

        Raises BadRequest when it has not the digest or the size that was promised, as soon as it is
        longer than promised; NoSpace when the disk is full. Nothing is left behind then.
        """
        if digest is not None:
            hex_of(digest)
        with self._staging("blob") as staged:
            path = staged / "data"
            blob = _written(stream, path, digest, size)
            os.rename(path, self._path(blob.digest))
        sync_directory(self._directory)
        return blob

    def adopt(self, staged: Path, digest: str) -> Blob:
        """Take over a file in staging that the caller has hashed while it wrote it.

        Raises NoSpace when it cannot be written back; the file is the caller's then.
        """
        target = self._path(digest)
        try:
            with open(staged, "rb") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            os.rename(staged, target)
            sync_directory(self._directory)
        except OSError as error:
            raise SandboxError.from_os("store a blob", error) from error
        return Blob(digest, size)

    def open(self, digest: str) -> BinaryIO:
        """The blob's bytes. Raises NotFound."""
        try:
            return open(self._path(digest), "rb")
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None

    def stat(self, digest: str) -> Blob:
        """Raises NotFound."""
        try:
            return Blob(digest, os.stat(self._path(digest)).st_size)
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None

    def delete(self, digest: str) -> None:
        """Delete; a blob that is not there is no error."""
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._directory / hex_of(digest)


def _written(stream: Reader, path: Path, digest: str | None, size: int | None) -> Blob:
    reader = HashingReader(stream)
    try:
        with open(path, "xb") as file:
            while block := reader.read(_BLOCK):
                if size is not None and reader.size > size:
                    raise BadRequest("blob", f"longer than the {size} bytes that were promised")
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SandboxError.from_os("write a blob", error) from error
    if size is not None and reader.size != size:
        raise BadRequest("blob", f"{reader.size} bytes long, {size} were promised")
    if digest is not None and reader.digest != digest:
        raise BadRequest("blob", f"its digest is {reader.digest}, {digest} was promised")
    return Blob(reader.digest, reader.size)
