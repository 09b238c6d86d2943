"""A whole build: the stages that the target needs, side by side, and the image of the last one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from sandboxd.errors import BadRequest, NoSuchImage, SandboxError
from sandboxd.images.build.bases import Bases, Built
from sandboxd.images.build.context import Context
from sandboxd.images.build.dockerfile import parse_dockerfile
from sandboxd.images.build.file_digests import FileDigests
from sandboxd.images.build.options import BuildOptions, Report
from sandboxd.images.build.shop import Shop, Tools
from sandboxd.images.build.stage_build import StageBuild, StepError
from sandboxd.images.build.stages import plan_stages
from sandboxd.images.image import Image
from sandboxd.images.images import Images
from sandboxd.images.reference import Reference
from sandboxd.images.sources import Arrival, Workbench
from sandboxd.store.digests import digest_of
from sandboxd.threads import in_thread


async def build_image(
    tools: Tools, context: Context, options: BuildOptions, report: Report
) -> Image:
    """Build, name and return the image.

    `report` gets the objects of the Engine API's build stream. Raises BadRequest, BuildFailed for a
    command of RUN, whatever a pull raises. A build that fails leaves no image, and what it made so
    far in the cache. Cancelling it ends the commands that run.
    """
    dockerfile = parse_dockerfile(context.dockerfile)
    plan = plan_stages(dockerfile, options.arguments, options.target, options.platform)
    for warning in dockerfile.warnings:
        report({"stream": f"[Warning] {warning}\n"})
    with ExitStack() as held:
        bases = Bases(tools.images, options, report)
        digests = FileDigests(tools.files, is_lasting=context.is_lasting)
        running: dict[int, asyncio.Task[Built]] = {}

        def begin(index: int) -> asyncio.Task[Built]:
            if index not in running:
                work = StageBuild(shop, plan.stages[index]).build()
                running[index] = asyncio.ensure_future(work)
            return running[index]

        async def stage(index: int) -> Built:
            # Of two stages that wait for this one, the end of one must not end it.
            return await asyncio.shield(begin(index))

        shop = Shop(tools, options, context, plan, report, held, bases, digests, stage)
        try:
            for index in plan.needed:
                begin(index)
            await _all(running)
            built = running[plan.target].result()
            _warn_unused(shop, set(options.arguments) - plan.outer.consumed)
            image = await in_thread(partial(_taken_in, shop, built))
        finally:
            await _stop(running)
            await bases.close()
    report({"aux": {"ID": image.id}})
    report({"stream": f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n"})
    for name in options.names:
        report({"stream": f"Successfully tagged {name.tagged}\n"})
    return image


async def _all(running: dict[int, asyncio.Task[Built]]) -> None:
    """Wait for every stage; raises the first error, in the Dockerfile's own words."""
    while waiting := [task for task in running.values() if not task.done()]:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.cancelled() or task.exception() for task in done):
            break
    for task in running.values():
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, StepError):
                raise error.error from error.__cause__
            raise error


async def _stop(running: dict[int, asyncio.Task[Built]]) -> None:
    """End the stages that still run, and wait until nothing of theirs works in our directories."""
    for task in running.values():
        task.cancel()
    if running:
        await asyncio.wait(running.values())


def _warn_unused(shop: Shop, unused: set[str]) -> None:
    if unused:
        names = " ".join(sorted(unused))
        shop.say(f"[Warning] One or more build-args [{names}] were not consumed\n")


def _taken_in(shop: Shop, built: Built) -> Image:
    """The finished stage as an image under its names."""
    images, names = shop.tools.images, shop.options.names
    if not built.changed and not shop.options.labels and built.image_id:
        base = images.get(built.image_id)
        if not base.is_host:
            for name in names:
                images.tag(base.id, name.name, name.tag or "latest")
            return images.get(base.id)
    if not built.changed and not built.image_id:
        raise BadRequest("no image was generated", "the stage has no instruction")
    source = _BuiltImage(built, names, dict(shop.options.labels))
    if (known := source.known(images)) is None:
        return images.take(source)[0]
    for name in names:
        if name.tagged not in known.tags:
            images.tag(known.id, name.name, name.tag or "latest")
    return images.get(known.id)


@dataclass(frozen=True, slots=True)
class _BuiltImage:
    """A finished stage as a source of images: its layers are in the store already."""

    built: Built
    names: tuple[Reference, ...]
    labels: dict[str, str]

    def known(self, images: Images) -> Image | None:
        """The image, when it is there already: nothing is written then but new names."""
        try:
            found = images.get(digest_of(self._bytes()))
        except NoSuchImage:
            return None
        return found if found.on_host == self.built.chain.on_host else None

    def arrivals(self, bench: Workbench) -> Iterator[Arrival]:
        chain = self.built.chain
        for layer in chain.layers:
            if not bench.has(layer):
                raise SandboxError(f"layer {layer}", "it vanished during the build")
        yield Arrival(self._bytes(), chain.layers, self.names, on_host=chain.on_host)

    def _bytes(self) -> bytes:
        return json.dumps(self._document(), separators=(",", ":"), sort_keys=True).encode()

    def _document(self) -> dict[str, Any]:
        """https://github.com/opencontainers/image-spec/blob/main/config.md"""
        document = dict(self.built.document)
        config = {key: value for key, value in document["config"].items() if value is not None}
        if self.labels:
            config["Labels"] = {**(config.get("Labels") or {}), **self.labels}
        return {
            **{
                key: document[key] for key in ("author", "variant", "os.version") if key in document
            },
            "architecture": document.get("architecture", ""),
            "os": document.get("os") or "linux",
            "created": document.get("created") or "1970-01-01T00:00:00Z",
            "config": config,
            "history": document.get("history") or [],
            "rootfs": {"type": "layers", "diff_ids": list(self.built.chain.layers)},
        }
