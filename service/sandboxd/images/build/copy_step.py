"""COPY and ADD in a stage: their words expanded, their key, their layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxd.errors import BadRequest
from sandboxd.images.build.cache import CachedStep, step_key
from sandboxd.images.build.copying import Copying, Source, absolute_target
from sandboxd.images.build.downloads import download, is_remote
from sandboxd.images.build.expansion import Expansion
from sandboxd.images.build.instructions import Copy, Heredoc
from sandboxd.images.build.selection import Request
from sandboxd.images.build.shop import Found, Shop, empty_directory
from sandboxd.threads import in_thread

if TYPE_CHECKING:
    from sandboxd.images.build.stage_build import StageBuild


@dataclass(frozen=True, slots=True)
class CopyStep:
    """`key` is of the step; `link_key`, with --link, of the layer whatever lies below."""

    shop: Shop
    copying: Copying
    key: str
    link_key: str

    @classmethod
    async def prepared(cls, stage: StageBuild, copy: Copy) -> CopyStep:
        """Raises BadRequest for sources that are not there, targets that cannot be."""
        shop, expansion = stage.shop, stage.scope.expansion()
        keyword = "ADD" if copy.is_add else "COPY"
        if "$" in copy.origin:
            raise BadRequest("--from", "variables are not expanded there: name a stage with FROM")
        words = [expansion.word(each) for each in copy.sources if isinstance(each, str)]
        remote = [word for word in words if copy.is_add and is_remote(word)]
        target = absolute_target(expansion.word(copy.target), stage.workdir)
        extra = _heredocs(shop, copy, expansion)
        for url in remote:
            place, needs_name = shop.fresh_directory("url"), target.endswith("/")
            fetch = partial(download, url, place, copy.checksum, needs_name=needs_name)
            extra.append(await in_thread(fetch))
        if copy.checksum and not remote:
            raise BadRequest("--checksum", "it is for a source that is an http or https URL")
        found = await shop.origin(copy.origin, stage.stage.index) if copy.origin else None
        request = Request(
            keyword,
            tuple(word for word in words if word not in remote),
            target,
            copy.parents,
            tuple(expansion.word(each) for each in copy.excludes),
        )
        mode = _mode(expansion.word(copy.mode))
        owner = expansion.word(copy.owner)
        copying = Copying(
            request,
            _source(shop, found),
            () if copy.link else shop.lowers(stage.chain),
            owner,
            mode,
            copy.is_add and copy.unpack,
            shop.tools.idmap,
            shop.fresh_directory,
            stage.chain.on_host or (found is not None and found.chain.on_host),
            extra,
        )
        content = await _content(shop, copying, found)
        ingredients: list[Any] = [keyword, request.patterns, request.target, request.parents,
                                  request.excludes, owner, mode, copying.unpacks, copy.link,
                                  content, shop.tools.idmap.kind]  # fmt: skip
        link_key = step_key("LINK", *ingredients) if copy.link else ""
        return cls(shop, copying, step_key(stage.chain.key, *ingredients), link_key)

    async def make(self) -> str:
        """Write the layer, or with --link find the one that was written over another base."""
        if not self.link_key:
            return await in_thread(self._written)
        cache = self.shop.tools.cache
        async with cache.one_at_a_time(self.link_key):
            step = None
            if not self.shop.options.no_cache:
                step = cache.find(self.link_key, self.shop.pin)
            if step is None:
                step = CachedStep(await in_thread(self._written), self.shop.now())
                cache.record(self.link_key, step)
        return step.layer

    def _written(self) -> str:
        tree = empty_directory(self.shop.fresh_directory("copy") / "u")
        self.copying.write(tree)
        return self.shop.adopt(tree, self.copying.below)


def _heredocs(shop: Shop, copy: Copy, expansion: Expansion) -> list[Path]:
    files = []
    for each in copy.sources:
        if isinstance(each, Heredoc):
            if each.name in ("", ".", "..") or "/" in each.name:
                raise BadRequest(f"<<{each.name}", "it cannot be the name of a file")
            path = shop.fresh_directory("heredoc") / each.name
            content = expansion.document(each.content) if each.expand else each.content
            path.write_text(content, errors="surrogateescape")
            path.chmod(0o644)
            files.append(path)
    return files


def _source(shop: Shop, found: Found | None) -> Source:
    if found is None:
        return shop.context_source()
    return Source(shop.lowers(found.chain), keeps_owner=True)


async def _content(shop: Shop, copying: Copying, found: Found | None) -> str:
    """What stands for the sources in the key. A stage or an image never changes, the machine's own
    root does."""
    if found is not None and not found.chain.on_host and not copying.extra:
        return found.key
    return await in_thread(lambda: copying.digest(shop.digests))


def _mode(text: str) -> int | None:
    if not text:
        return None
    if text.strip("01234567") or not 1 <= len(text) <= 5 or int(text, 8) > 0o7777:
        why = "octal digits are needed, such as 755 or 0644"
        raise BadRequest(f"--chmod={text}", why)
    return int(text, 8)
