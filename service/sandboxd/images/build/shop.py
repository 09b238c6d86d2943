"""What all stages of one build share: tools, the context, what is kept until the image stands."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxd.images.build.bases import Bases, Built, Chain
from sandboxd.images.build.cache import CacheDirectories, StepCache
from sandboxd.images.build.context import Context
from sandboxd.images.build.copying import Source
from sandboxd.images.build.file_digests import FileDigests, KnownFiles
from sandboxd.images.build.options import BuildOptions, Report
from sandboxd.images.build.stages import SCRATCH, Plan
from sandboxd.images.build.steps import StepRunner
from sandboxd.images.upper import adopt_upper
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store

if TYPE_CHECKING:
    from sandboxd.images.images import Images

_EPOCH: Final = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class Tools:
    """What outlives a build."""

    store: Store
    images: Images
    idmap: IdMap
    runner: StepRunner
    cache: StepCache
    directories: CacheDirectories
    files: KnownFiles


@dataclass(frozen=True, slots=True)
class Found:
    """What a `--from` names: its layers and what stands for it in a key. `id` is an image's."""

    chain: Chain
    key: str


@dataclass(slots=True)
class Shop:
    """`held` is closed with the build.

    `stage` gives a stage once it is built.
    """

    tools: Tools
    options: BuildOptions
    context: Context
    plan: Plan
    report: Report
    held: ExitStack
    bases: Bases
    digests: FileDigests
    stage: Callable[[int], Awaitable[Built]]
    _staged: Path | None = None
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        """One piece of the build's output."""
        self.report({"stream": text})

    def fresh_directory(self, prefix: str) -> Path:
        """A private directory of the state root, gone with the build. Most cached builds need none:
        the first one that is asked for makes the place for all."""
        with self._mutex:
            if self._staged is None:
                self._staged = self.held.enter_context(self.tools.store.staging("build"))
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._staged))

    def pin(self, digest: str) -> None:
        """Keep a layer until the build is over."""
        self.held.enter_context(self.tools.store.pin(digest))

    def lowers(self, chain: Chain) -> tuple[Path, ...]:
        """The directories whose union the chain is, topmost first."""
        layers = tuple(self.tools.store.layers.path(layer) for layer in chain.stack)
        if not chain.on_host:
            return layers
        host = self.tools.images.lowers(self.tools.images.get("host"))
        return (*layers, *(host or (Path("/"),)))

    def adopt(self, tree: Path, lowers: tuple[Path, ...]) -> str:
        """Publish a directory as a layer, kept until the build is over; empty for no change."""
        tools = self.tools
        layer = adopt_upper(tools.store, tools.idmap, tree, lowers, clamp=self.epoch)
        if layer is None:
            return ""
        self.held.callback(tools.store.release_pin, layer.diff_id)
        return layer.diff_id

    async def origin(self, name: str, before: int) -> Found:
        """What `--from=NAME` means in stage number `before`. Raises BadRequest, NoSuchImage."""
        index = self.plan.stage_called(name, before)
        if index is not None:
            chain = (await self.stage(index)).chain
            return Found(chain, chain.key)
        if name.lower() == SCRATCH:
            return Found(Chain(SCRATCH), SCRATCH)
        image = await self.bases.image(name, "")
        on_host = image.is_host or image.on_host
        for layer in (*image.layers, *image.stack):
            self.pin(layer)
        return Found(Chain(image.id, image.layers, image.stack, on_host), image.id)

    def context_source(self) -> Source:
        missing = "file not found in build context or excluded by .dockerignore"
        return Source((self.context.root,), self.context.wanted, missing=missing)

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH, in seconds: no time in the image is later."""
        value = self.options.arguments.get(_EPOCH) or ""
        return int(value) if value.isascii() and value.isdigit() else None

    def now(self) -> str:
        """The moment as RFC 3339, or the epoch that was asked for."""
        moment = datetime.now(UTC) if self.epoch is None else datetime.fromtimestamp(
            self.epoch, UTC
        )  # fmt: skip
        return moment.isoformat().replace("+00:00", "Z")


def empty_directory(path: Path) -> Path:
    """Make `path` with mode 0755, whatever the umask is."""
    path.mkdir(mode=0o755)
    os.chmod(path, 0o755)
    return path
