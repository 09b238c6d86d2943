"""The mounts of one RUN: what stands for them in its key, and what they are when it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.images.build.contents import Contents
from sandboxd.images.build.copying import Source
from sandboxd.images.build.layer_writer import LayerWriter
from sandboxd.images.build.mounts import (
    BindMount,
    CacheMount,
    MountRequest,
    SecretMount,
    TmpfsMount,
)
from sandboxd.images.build.selection import Picked
from sandboxd.images.build.shop import Found, Shop
from sandboxd.images.build.steps import (
    DirectoryMount,
    FileMount,
    MemoryMount,
    StepMount,
    TreeMount,
)
from sandboxd.images.build.union import Parts, Union
from sandboxd.images.ownership import Ownership
from sandboxd.store import trees
from sandboxd.threads import in_thread


class RunMounts:
    """The mounts that a RUN in stage number `stage` asks for."""

    def __init__(self, shop: Shop, stage: int, requests: Sequence[MountRequest]) -> None:
        self._shop, self._stage = shop, stage
        self.requests = requests

    async def ingredients(self) -> list[Any]:
        """For the key: bind mounts by their content, cache mounts and secrets by id alone."""
        return [await self._ingredient(each) for each in self.requests]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[list[StepMount]]:
        """What the runner mounts. Raises BadRequest for a secret or source that is not there."""
        async with AsyncExitStack() as held:
            mounts = []
            for request in self.requests:
                if (mount := await self._opened(held, request)) is not None:
                    mounts.append(mount)
            yield mounts

    async def _ingredient(self, request: MountRequest) -> list[Any]:
        match request:
            case BindMount():
                said = ["bind", request.target, request.source, request.readonly]
                if not request.origin:
                    return [*said, await in_thread(partial(self._context_digest, request))]
                return [*said, (await self._found(request.origin)).key]
            case CacheMount():
                return ["cache", request.target, request.id]
            case TmpfsMount():
                return ["tmpfs", request.target, request.size]
            case SecretMount():
                return ["secret", request.id, request.target, request.env, request.required]

    async def _found(self, origin: str) -> Found:
        found = await self._shop.origin(origin, self._stage)
        if found.chain.on_host:
            why = "the machine's own root cannot be mounted as part of another one"
            raise CannotEnforce(f"--mount=from={origin}", why, "COPY --from")
        return found

    async def _source(self, origin: str) -> Source:
        if not origin:
            return self._shop.context_source()
        found = await self._found(origin)
        return Source(self._shop.lowers(found.chain))

    async def _opened(self, held: AsyncExitStack, request: MountRequest) -> StepMount | None:
        match request:
            case BindMount():
                return await self._bind(request)
            case CacheMount():
                return await self._cache(held, request)
            case TmpfsMount():
                return MemoryMount(request.target, request.size)
            case SecretMount():
                content = self._shop.options.secrets.get(request.id)
                if content is None and request.required:
                    mend = f"sandboxctl build --secret id={request.id},src=FILE"
                    raise BadRequest(f"secret {request.id}", "the client did not give it", mend)
                if content is None or not request.target:
                    return None
                return FileMount(request.target, content, request.mode, request.uid, request.gid)

    async def _bind(self, request: BindMount) -> TreeMount:
        source = await self._source(request.origin)
        if not request.origin and self._shop.context.ignored.patterns:
            tree, parts = await in_thread(partial(self._filtered, request.source))
            return TreeMount(request.target, (tree,), parts, request.readonly, bool(parts))
        parts, is_file = await in_thread(partial(_resolved, source, request.source))
        return TreeMount(request.target, source.lowers, parts, request.readonly, is_file)

    async def _cache(self, held: AsyncExitStack, request: CacheMount) -> DirectoryMount:
        directories = self._shop.tools.directories
        path = await held.enter_async_context(directories.opened(request.id, request.sharing))
        if not any(path.iterdir()):
            if request.origin:
                source = await self._source(request.origin)
                await in_thread(partial(self._fill, source, request.source, path))
            ownership = Ownership(self._shop.tools.idmap)
            os.chown(path, *ownership.placed(request.uid, request.gid))
            os.chmod(path, request.mode)
        return DirectoryMount(request.target, path, request.readonly)

    def _context_digest(self, request: BindMount) -> str:
        source = self._shop.context_source()
        parts, _ = _resolved(source, request.source)
        contents = Contents(self._shop.digests)
        with Union(source.lowers) as union:
            contents.add(_picked(union, source, parts))
        self._shop.digests.save()
        return contents.digest()

    def _filtered(self, path: str) -> tuple[Path, Parts]:
        """A copy of the context's part without what .dockerignore leaves out."""
        source = self._shop.context_source()
        parts, is_file = _resolved(source, path)
        tree = self._shop.fresh_directory("bind")
        self._fill(source, path, tree, keep_name=True)
        return tree, parts[-1:] if is_file else ()

    def _fill(self, source: Source, path: str, tree: Path, *, keep_name: bool = False) -> None:
        """Copy what is at `path` into a directory of ours."""
        parts, _ = _resolved(source, path)
        root = trees.open_tree(tree)
        try:
            os.fchmod(root, 0o755)
            with Union(source.lowers) as union, Union(()) as nothing:
                picked = _picked(union, source, parts)
                if picked.is_directory:
                    target: Parts = ()
                elif keep_name:
                    target = parts[-1:]
                else:
                    raise BadRequest(f"--mount: {path}", "it is not a directory")
                writer = LayerWriter(root, nothing, Ownership(self._shop.tools.idmap))
                try:
                    writer.copy(picked, target)
                finally:
                    writer.close()
        finally:
            os.close(root)


def _resolved(source: Source, path: str) -> tuple[Parts, bool]:
    """Where a path leads, and whether there is no directory. Raises BadRequest for nothing."""
    with Union(source.lowers) as union:
        parts = union.resolve(f"/{path}")
        with union.at(parts) as node:
            if node is None or (parts and source.wanted(parts, node.is_directory) is False):
                raise BadRequest(f"--mount: {path or '/'}", source.missing)
            return parts, not node.is_directory


def _picked(union: Union, source: Source, parts: Parts) -> Picked:
    def wanted(path: Parts, is_directory: bool) -> bool | None:
        return source.wanted((*parts, *path), is_directory)

    with union.at(parts) as node:
        is_directory = node is not None and node.is_directory
    return Picked(union, parts, (), is_directory, source.keeps_owner, wanted)
