"""The build context: a directory, less what .dockerignore leaves out.

Either a directory of this machine's, read where it lies, or what a client sent as a tar archive,
unpacked by the same code that unpacks layers. Nothing in it can name a file outside of it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import e2b_dockerfile_utils as syntax

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.applier import Applier
from sandboxd.images.build.union import Parts, Union
from sandboxd.images.compression import Decompressed
from sandboxd.images.ownership import Ownership
from sandboxd.images.tar import BLOCK, Limits, TarReader
from sandboxd.linux.idmap import IdMap
from sandboxd.store import trees
from sandboxd.store.digests import Reader

DOCKERFILE: Final = "Dockerfile"
_FILE_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """`is_lasting` says that the files may be the same ones at the next build."""

    root: Path
    is_lasting: bool
    ignored: syntax.PatternMatcher
    dockerfile: bytes

    @classmethod
    def open(
        cls, root: Path, dockerfile: str = "", *, text: bytes | None = None, is_lasting: bool = True
    ) -> Context:
        """`text` is the Dockerfile's content where it does not lie in the context.

        Raises BadRequest: no such directory or Dockerfile, a malformed .dockerignore.
        """
        if not root.is_dir():
            raise BadRequest(f"build context {root}", "it is not a directory")
        name = dockerfile or DOCKERFILE
        try:
            with Union((root,)) as union:
                content = _read(union, name) if text is None else text
                rules = _read(union, f"{name}.dockerignore")
                if rules is None:
                    rules = _read(union, ".dockerignore")
        except OSError as error:
            raise SandboxError.from_os(f"read the build context {root}", error) from error
        if content is None:
            raise BadRequest(f"Cannot locate specified Dockerfile: {name}")
        return cls(root, is_lasting, _patterns(rules or b""), content)

    def wanted(self, parts: Parts, is_directory: bool) -> bool | None:
        """See `union.Wanted`."""
        if not self.ignored.patterns:
            return True
        path = "/".join(parts)
        if not self.ignored.matches(path):
            return True
        return None if is_directory and self.ignored.may_match_under(path) else False


def unpack_context(stream: Reader, staged: Path, idmap: IdMap) -> Path:
    """Unpack what a client sent, compressed or not, below `staged`; returns its directory.

    Raises BadRequest for a hostile or damaged archive, NoSpace.
    """
    tree = Path(tempfile.mkdtemp(prefix="context-", dir=staged))
    attic = Path(tempfile.mkdtemp(prefix="attic-", dir=staged))
    unpack_tree(_WholeBlocks(Decompressed(stream)), tree, attic, idmap)
    return tree


class _WholeBlocks:
    """Ends a stream at a whole block of an archive, with zeros.

    The docker command does not when it adds a Dockerfile from standard input to a context. That
    nothing broke off on the way is for HTTP to know.
    """

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._size = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size) or bytes(-self._size % BLOCK)
        self._size += len(data)
        return data


def unpack_tree(stream: Reader, tree: Path, attic: Path, idmap: IdMap) -> None:
    """Unpack a tar archive into the empty directory `tree`; `attic` takes what is replaced."""
    root_fd, attic_fd = trees.open_tree(tree), trees.open_tree(attic)
    try:
        archive = TarReader(stream, Limits())
        Applier(root_fd, attic_fd, Ownership(idmap)).apply(archive)
    finally:
        os.close(root_fd)
        os.close(attic_fd)


def _read(union: Union, path: str) -> bytes | None:
    with union.at(union.resolve(path)) as node:
        if node is None:
            return None
        if not stat.S_ISREG(node.status.st_mode):
            raise BadRequest(f"{path} in the build context", "it is not a regular file")
        with open(node.open(), "rb") as file:
            content = file.read(_FILE_MAX + 1)
    if len(content) > _FILE_MAX:
        raise BadRequest(f"{path} in the build context", f"longer than {_FILE_MAX} bytes")
    return content


def _patterns(rules: bytes) -> syntax.PatternMatcher:
    lines = rules.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape").splitlines()
    try:
        return syntax.PatternMatcher(lines)
    except ValueError as error:
        raise BadRequest(".dockerignore", str(error)) from error
