"""What a stage starts from: an image, the machine's own root, nothing, or another stage."""

from __future__ import annotations

import asyncio
import copy
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from sandboxd.errors import BadRequest, NoSuchImage, NotFound
from sandboxd.images.build.cache import step_key
from sandboxd.images.build.options import BuildOptions, Report
from sandboxd.images.build.stages import SCRATCH
from sandboxd.images.image import Image
from sandboxd.images.images import Images
from sandboxd.images.platform import architecture
from sandboxd.images.reference import Reference

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Chain:
    """A root as far as it was built: the key of all that led to it, and its layers.

    `layers` are diffIDs from the lowest up, `stack` those to mount, topmost first.
    """

    key: str
    layers: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()
    on_host: bool = False


@dataclass(slots=True)
class Built:
    """A stage: its root, the image config as it stands, and the image that it began with."""

    chain: Chain
    document: dict[str, Any]
    triggers: tuple[str, ...] = ()
    image_id: str = ""
    changed: bool = False
    """Whether anything was done since the base image."""
    arguments: dict[str, str] = field(default_factory=dict)

    def copied(self) -> Built:
        return Built(
            self.chain, copy.deepcopy(self.document), (), self.image_id, self.changed,
            dict(self.arguments),
        )  # fmt: skip


class Bases:
    """Finds base images, pulling each that is missing, or all with --pull, once for a build."""

    def __init__(self, images: Images, options: BuildOptions, report: Report) -> None:
        self._images, self._options, self._report = images, options, report
        self._pulled: dict[tuple[str, str], asyncio.Task[Image]] = {}

    async def image(self, name: str, platform: str) -> Image:
        """Raises NoSuchImage, BadRequest, and whatever a pull raises."""
        key = name, platform
        if key not in self._pulled:
            self._pulled[key] = asyncio.ensure_future(self._found(name, platform))
        return await asyncio.shield(self._pulled[key])

    async def close(self) -> None:
        """Wait for pulls that nobody waits for any more."""
        for task in self._pulled.values():
            if not task.done():
                task.cancel()
        await asyncio.gather(*self._pulled.values(), return_exceptions=True)

    async def _found(self, name: str, platform: str) -> Image:
        try:
            found = self._images.get(name)
        except NoSuchImage:
            return await self._pull(name, platform)
        by_tag = name not in (found.id, found.id.removeprefix("sha256:")) and "@" not in name
        if self._options.pull and by_tag and not found.is_host and not found.on_host:
            return await self._pull(name, platform)
        check_platform(found, platform)
        return found

    async def _pull(self, name: str, platform: str) -> Image:
        loop, stop = asyncio.get_running_loop(), threading.Event()
        reference = Reference.parse(name)

        def progress(entry: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(self._report, entry)

        def pull() -> Image:
            return self._images.pull(
                name,
                platform=platform,
                credentials=self._options.credentials(reference.domain),
                progress=progress,
                cancelled=stop,
            )

        working = asyncio.ensure_future(asyncio.to_thread(pull))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([working])
            raise


def begun(image: Image) -> Built:
    """A stage that starts with an image."""
    document = copy.deepcopy(image.config)
    config = document.setdefault("config", {}) or {}
    triggers = tuple(config.pop("OnBuild", None) or ())
    document["config"] = config
    on_host = image.is_host or image.on_host
    chain = Chain(step_key("FROM", image.id), image.layers, image.stack, on_host)
    return Built(chain, document, triggers, image.id)


def from_scratch(platform: str) -> Built:
    """A stage that starts with nothing."""
    machine = (platform.split("/") + [""])[1] or architecture()
    document: dict[str, Any] = {
        "architecture": _ALIASES.get(machine, machine),
        "os": "linux",
        "config": {"Env": [_PATH]},
        "history": [],
    }
    return Built(Chain(step_key("FROM", SCRATCH, machine)), document)


def check_platform(image: Image, platform: str) -> None:
    """Raises NotFound for an image that is not of the platform asked for, BadRequest for what is
    no platform."""
    if not platform:
        return
    system, _, rest = platform.lower().partition("/")
    machine = rest.partition("/")[0]
    if not system or system.startswith("/"):
        raise BadRequest(f'"{platform}" is an invalid platform specifier')
    if not machine and system != "linux":
        system, machine = "linux", system
    own = image.config.get("os") or "linux", image.config.get("architecture") or ""
    other = machine and own[1] and _ALIASES.get(machine, machine) != own[1]
    if system != own[0] or other:
        raise NotFound(
            f"image {image.id} was found but does not match the specified platform: "
            f"wanted {platform}, actual: {own[0]}/{own[1]}"
        )
