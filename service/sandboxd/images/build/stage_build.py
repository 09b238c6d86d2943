"""One stage, instruction after instruction: each finds its layer in the cache, or makes it."""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sandboxd.errors import SandboxError
from sandboxd.images.build import configuring
from sandboxd.images.build.bases import Built, Chain, begun, from_scratch
from sandboxd.images.build.cache import CachedStep, step_key
from sandboxd.images.build.copy_step import CopyStep
from sandboxd.images.build.dockerfile import parse_trigger
from sandboxd.images.build.instructions import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Instruction,
    Maintainer,
    Run,
    Workdir,
)
from sandboxd.images.build.layer_writer import LayerWriter
from sandboxd.images.build.run_step import RunInstruction
from sandboxd.images.build.shop import Shop, empty_directory
from sandboxd.images.build.stages import SCRATCH, Stage
from sandboxd.images.build.union import Union
from sandboxd.images.build.variables import Scope
from sandboxd.images.ownership import Ownership
from sandboxd.store import trees
from sandboxd.threads import in_thread

Make = Callable[[], Awaitable[str]]
"""Makes a layer: its diffID, empty when no file changed."""


class StepError(Exception):
    """A step's error, with the place in the Dockerfile told already."""

    def __init__(self, error: SandboxError) -> None:
        super().__init__(str(error))
        self.error = error


class StageBuild:
    """Builds one stage. `chain`, `config` and `scope` are what its instructions see."""

    def __init__(self, shop: Shop, stage: Stage) -> None:
        self.shop, self.stage = shop, stage
        self.built = Built(Chain(""), {})
        self.scope = Scope(shop.plan.outer, {})
        self._number = shop.plan.numbers.get(stage.index, 0)
        self._command_is_own = False

    @property
    def chain(self) -> Chain:
        return self.built.chain

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.built.document["config"]
        return config

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    async def build(self) -> Built:
        """Raises StepError; CancelledError when another stage failed."""
        self._announce(self.stage.source)
        await self._located(self.stage.source, self._begin)
        triggers = self.built.triggers
        if triggers:
            plural = "trigger" if len(triggers) == 1 else "triggers"
            self.shop.say(f"# Executing {len(triggers)} build {plural}\n")
        for text in triggers:
            trigger = parse_trigger(text, self.shop.plan.outer.escape)
            await self._located(trigger, partial(self._execute, trigger))
        for each in self.stage.instructions:
            self._number += 1
            self._announce(each)
            await self._located(each, partial(self._execute, each))
            self.shop.say(f" ---> {_short(self.chain.key)}\n")
        return self.built

    def _announce(self, instruction: Instruction) -> None:
        text = instruction.text.replace("\n", " ")
        self.shop.say(f"Step {self._number}/{self.shop.plan.steps} : {text}\n")

    async def _located(self, instruction: Instruction, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except SandboxError as error:
            raise StepError(_at(instruction, error)) from error
        except OSError as error:
            told = SandboxError.from_os(instruction.text[:200], error)
            raise StepError(_at(instruction, told)) from error

    async def _begin(self) -> None:
        stage, shop = self.stage, self.shop
        if stage.base is not None:
            earlier = await shop.stage(stage.base)
            self.built = earlier.copied()
            # Triggers of a stage run in the stages that are built upon it.
            self.built.triggers = tuple(self.config.pop("OnBuild", None) or ())
        elif stage.image.lower() == SCRATCH:
            self.built = from_scratch(stage.platform)
        else:
            image = await shop.bases.image(stage.image, stage.platform)
            self.built = begun(image)
            shop.say(f" ---> {_short(image.id)}\n")
        for layer in (*self.chain.layers, *self.chain.stack):
            shop.pin(layer)
        self.scope = Scope(
            shop.plan.outer, configuring.environment_of(self.config), self.built.arguments
        )

    async def _execute(self, instruction: Instruction) -> None:
        match instruction:
            case Run():
                step = await RunInstruction.prepared(self, instruction)
                await self.layer_step(step.key, step.shown, step.make)
            case Copy():
                copying = await CopyStep.prepared(self, instruction)
                await self.layer_step(copying.key, instruction.text, copying.make)
            case Workdir():
                await self._workdir(instruction)
            case Arg():
                self.scope.declare(instruction)
                self.built.arguments = self.scope.declared
                await self._config_step(instruction, "ARG", instruction.text)
            case Maintainer():
                self.built.document["author"] = self.scope.expansion().word(instruction.author)
                await self._config_step(instruction, "MAINTAINER", self.built.document["author"])
            case _:
                await self._configure(instruction)

    async def _configure(self, instruction: Instruction) -> None:
        config = configuring.configured(self.config, instruction, self.scope.expansion())
        if isinstance(instruction, Cmd):
            self._command_is_own = True
        if isinstance(instruction, Entrypoint) and not self._command_is_own:
            # The base image's command belongs to the base image's entrypoint.
            config.pop("Cmd", None)
        self.built.document["config"] = config
        if isinstance(instruction, Env):
            self.scope.environment = configuring.environment_of(config)
        await self._config_step(instruction, type(instruction).__name__, config)

    async def _workdir(self, instruction: Workdir) -> None:
        path = configuring.work_directory(
            self.config, self.scope.expansion().word(instruction.path)
        )
        self.config["WorkingDir"] = path
        chain, lowers = self.chain, self.shop.lowers(self.chain)

        def make() -> str:
            with Union(lowers) as below:
                parts = below.resolve(path)
                with below.at(parts) as node:
                    if node is not None and node.is_directory:
                        return ""
                tree = empty_directory(self.shop.fresh_directory("workdir") / "u")
                root = trees.open_tree(tree)
                ownership = Ownership(self.shop.tools.idmap, on_host=chain.on_host)
                writer = LayerWriter(root, below, ownership)
                try:
                    writer.directory(parts)
                finally:
                    writer.close()
                    os.close(root)
            return self.shop.adopt(tree, lowers)

        key = step_key(chain.key, "WORKDIR", path)
        await self.layer_step(key, instruction.text, lambda: in_thread(make))

    async def _config_step(self, instruction: Instruction, name: str, value: Any) -> None:
        async def make() -> str:
            return ""

        await self.layer_step(step_key(self.chain.key, name, value), instruction.text, make)

    async def layer_step(self, key: str, shown: str, make: Make) -> None:
        """Take a step's layer from the cache or make it, and go on from there."""
        cache, no_cache = self.shop.tools.cache, self.shop.options.no_cache
        async with cache.one_at_a_time(key):
            step = None if no_cache else cache.find(key, self.shop.pin)
            if step is None:
                step = CachedStep(await make(), self.shop.now())
                cache.record(key, step)
            else:
                self.shop.say(" ---> Using cache\n")
        self._push(key, step, shown)

    def _push(self, key: str, step: CachedStep, shown: str) -> None:
        before = self.chain
        layers, stack = before.layers, before.stack
        if step.layer:
            layers = (*layers, step.layer)
            # overlayfs refuses a directory that stands twice; the topmost one counts.
            stack = (step.layer, *(each for each in stack if each != step.layer))
        self.built.chain = Chain(key, layers, stack, before.on_host)
        self.built.changed = True
        entry = {"created": step.created, "created_by": shown, "comment": "sandboxd.build"}
        document = self.built.document
        document["history"] = [
            *(document.get("history") or []),
            entry if step.layer else {**entry, "empty_layer": True},
        ]
        document["created"] = step.created


def _at(instruction: Instruction, error: SandboxError) -> SandboxError:
    """The same error, saying where in the Dockerfile it happened."""
    where = f"Dockerfile line {instruction.line}" if instruction.line else "a trigger of the base"
    first, _, more = instruction.text.partition("\n")
    told = copy.copy(error)
    why = f"{error.what}: {error.why}" if error.why else error.what
    told.what, told.why = f"{where}: {first[:200]}{' …' if more else ''}", why
    told.args = told.what, told.why, told.mend
    return told


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
