"""COPY and ADD: what they bring, the digest of it, and the layer that they write. All of it blocks.

`Copying` is made once for each instruction. `digest` looks at every source; `write` fills a fresh
directory with the layer.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandboxd.errors import BadRequest
from sandboxd.images.build.archives import is_archive
from sandboxd.images.build.contents import Contents
from sandboxd.images.build.context import unpack_tree
from sandboxd.images.build.file_digests import FileDigests
from sandboxd.images.build.layer_writer import LayerWriter
from sandboxd.images.build.owners import owner_of
from sandboxd.images.build.selection import Origin, Picked, Request, Selection, select
from sandboxd.images.build.union import Parts, Union, Wanted
from sandboxd.images.compression import Decompressed
from sandboxd.images.ownership import Ownership
from sandboxd.linux.idmap import IdMap
from sandboxd.store import trees


def everything(_: Parts, __: bool) -> bool:
    """Nothing is left out."""
    return True


@dataclass(frozen=True, slots=True)
class Source:
    """Where the sources lie: directories, topmost first, and what of them counts."""

    lowers: tuple[Path, ...]
    wanted: Wanted = everything
    keeps_owner: bool = False
    missing: str = "file does not exist"


@dataclass(frozen=True, slots=True)
class Copying:
    """One COPY or ADD, words expanded; `target` is absolute.

    `below` are the layers that it comes to lie on, none with --link. `extra` are files,
    heredocs and downloads, in directories of their own. `staging` makes private directories.
    `unpacks`: local archives are unpacked. `on_host`: the layers or the sources lie on the
    machine's own root.
    """

    request: Request
    source: Source
    below: tuple[Path, ...]
    owner: str
    mode: int | None
    unpacks: bool
    idmap: IdMap
    staging: Callable[[str], Path]
    on_host: bool
    extra: Sequence[Path] = field(default=())

    def digest(self, digests: FileDigests) -> str:
        """Of everything that is copied. Raises BadRequest for a source that is not there."""
        with self._opened() as (_, selection):
            contents = Contents(digests)
            for picked in selection.picked:
                contents.add(picked)
        digests.save()
        return contents.digest()

    def write(self, tree: Path) -> None:
        """Fill the empty directory `tree` with what makes the layer. Raises BadRequest, OSError."""
        with self._opened() as (below, selection), ExitStack() as held:
            root = trees.open_tree(tree)
            held.callback(os.close, root)
            ownership = Ownership(self.idmap, on_host=self.on_host)
            owner = None
            if self.owner:
                owner = ownership.placed(*owner_of(below, self.owner))
            os.fchmod(root, 0o755)
            writer = LayerWriter(root, below, ownership, owner, self.mode)
            target = below.resolve(self.request.target)
            try:
                if selection.into:
                    writer.directory(target)
                for picked in selection.picked:
                    self._write(writer, held, picked, target)
            finally:
                writer.close()

    def _write(self, writer: LayerWriter, held: ExitStack, picked: Picked, target: Parts) -> None:
        unpacked = None
        if self.unpacks and not picked.is_directory and not picked.extra:
            unpacked = self._unpacked(picked)
        if unpacked is None:
            writer.copy(picked, target)
            return
        union = held.enter_context(Union((unpacked,)))
        # The archive's own root says nothing about a target that is there already.
        writer.copy(Picked(union, (), picked.target[:-1], True, True, everything), target)

    def _unpacked(self, picked: Picked) -> Path | None:
        """The content of a local archive; None for a file that is none."""
        with picked.union.at(picked.parts) as node:
            assert node is not None
            if not is_archive(node):
                return None
            tree, attic = self.staging("added"), self.staging("attic")
            with open(node.open(), "rb") as stream:
                unpack_tree(Decompressed(stream), tree, attic, self.idmap)
            os.chmod(tree, 0o755)
            return tree

    @contextmanager
    def _opened(self) -> Iterator[tuple[Union, Selection]]:
        with ExitStack() as held:
            below = held.enter_context(Union(self.below))
            source = self.source
            union = held.enter_context(Union(source.lowers))
            origin = Origin(union, source.wanted, source.keeps_owner, source.missing)
            extra = [
                (Origin(held.enter_context(Union((path.parent,))), everything), path.name)
                for path in self.extra
            ]
            target = below.resolve(self.request.target)
            with below.at(target) as node:
                is_directory = node is not None and node.is_directory
                if node is not None and not is_directory and self.request.target.endswith("/"):
                    raise BadRequest(f"cannot copy to non-directory: {self.request.target}")
            request = self.request
            yield below, select(request, origin, extra, target_is_directory=is_directory)


def absolute_target(target: str, workdir: str) -> str:
    """A COPY's target from the root; a slash or dot at its end, which say directory, is kept."""
    joined = posixpath.join("/", workdir or "/", target)
    plain = f"/{posixpath.normpath(joined).lstrip('/')}"
    is_directory = target.endswith("/") or posixpath.basename(target) in (".", "..")
    return f"{plain.rstrip('/')}/" if is_directory else plain
