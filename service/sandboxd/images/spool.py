"""The members of an image archive as files in staging.

An archive may list its parts in any order, and names them by what is in them; so all are written
out, hashed on the way, and looked up by name afterwards. Names are keys here and never paths.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.documents import SIZE_MAX
from sandboxd.images.layer_root import components
from sandboxd.images.tar import Kind, Limits, Member, TarReader
from sandboxd.store.digests import Reader

_LINKS_MAX: Final = 8
_MEMBERS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive: where it was written, its digest and its size in bytes."""

    path: Path
    digest: str
    size: int

    def open(self) -> BinaryIO:
        return open(self.path, "rb")

    def read(self) -> bytes:
        """The whole content of a document. Raises BadRequest for one that is too big."""
        if self.size > SIZE_MAX:
            raise BadRequest("image archive", f"a document of {self.size} bytes")
        return self.path.read_bytes()


class Spool:
    """Reads an archive to its end into `directory`. Raises BadRequest, NoSpace."""

    def __init__(self, stream: Reader, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._parts: dict[str, Part] = {}
        self._links: dict[str, str] = {}
        archive = TarReader(stream, Limits(limits.size, _MEMBERS_MAX))
        for member in archive:
            self._take(member, archive)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def part(self, name: str) -> Part:
        """The file of that name, through links. Raises BadRequest when the archive has none."""
        for _ in range(_LINKS_MAX):
            if name in self._parts:
                return self._parts[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise BadRequest("image archive", f"it holds no {name[:200]!r}")

    def _take(self, member: Member, archive: TarReader) -> None:
        name = "/".join(components(member.name))
        if member.kind is Kind.FILE:
            self._parts[name] = self._written(archive)
        elif member.kind is Kind.SYMLINK:
            joined = posixpath.join(posixpath.dirname(name), member.target)
            self._links[name] = posixpath.normpath(joined)
        elif member.kind is Kind.HARD_LINK:
            self._links[name] = posixpath.normpath(member.target)

    def _written(self, archive: TarReader) -> Part:
        path = self._directory / f"part-{len(self._parts)}"
        data, size = hashlib.sha256(), 0
        try:
            # A name that comes twice overwrites: the last one counts.
            with open(path, "wb") as file:
                for piece in archive.data():
                    data.update(piece)
                    size += len(piece)
                    file.write(piece)
        except OSError as error:
            raise SandboxError.from_os("read the image archive", error) from error
        return Part(path, f"sha256:{data.hexdigest()}", size)
