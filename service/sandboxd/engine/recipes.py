"""Recipes: an image, files and commands that fill a snapshot, once for each machine."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import shlex
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.claims import SingleFlight
from sandboxd.engine.fields import Fields
from sandboxd.engine.floors import Floors
from sandboxd.engine.mountpoints import checked_target
from sandboxd.engine.recipe_files import File, write_beneath
from sandboxd.engine.runner import RunResult
from sandboxd.errors import BadRequest, NoSuchSnapshot

if TYPE_CHECKING:
    from sandboxd.engine.snapshot_cache import SnapshotCache
    from sandboxd.images import Image
    from sandboxd.store import Snapshot
    from sandboxd.volumes import Volume

Progress = Callable[[Mapping[str, Any]], None]
Run = Callable[[Mapping[str, Any]], Awaitable[RunResult]]

_RULES: Final = 1
"""Part of every key: to be raised when the same recipe would fill a snapshot differently."""
_TAIL: Final = 4096
"""Bytes of a failed step's output that the error quotes."""


@dataclass(frozen=True, slots=True)
class Step:
    args: tuple[str, ...]
    user: str
    workdir: str
    env: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe. `key` is the digest of everything in it, the image by its id."""

    image: Image
    steps: tuple[Step, ...]
    files: Mapping[str, File]
    env: tuple[str, ...]
    user: str
    target: str
    base: str | None
    binds: tuple[str, ...]
    show: tuple[str, ...]

    @property
    def key(self) -> str:
        canonical = json.dumps(
            {**self.spec, "Rules": _RULES}, sort_keys=True, separators=(",", ":")
        )
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    @property
    def spec(self) -> dict[str, Any]:
        """What the snapshot says about its making; files by digest."""
        return {
            "Image": self.image.id,
            "Steps": [[step.args, step.user, step.workdir, step.env] for step in self.steps],
            "Files": {path: [file.digest, file.mode] for path, file in self.files.items()},
            "Env": self.env,
            "User": self.user,
            "Target": self.target,
            "Base": self.base,
            "Binds": self.binds,
            "Show": self.show,
        }

    @property
    def has_users(self) -> bool:
        """Whether some step runs as another user than the image's."""
        return bool(self.user or any(step.user for step in self.steps))


def parse_recipe(body: Mapping[str, Any], image: Image) -> Recipe:
    """Raises BadRequest for wrong types, paths that are not absolute, broken base64."""
    fields = Fields(body)
    return Recipe(
        image=image,
        steps=tuple(_step(step) for step in fields.objects("Steps")),
        files={
            checked_target(path): _file(path, Fields(file, f"Files[{path}]"))
            for path, file in sorted(fields.mapping("Files").items())
        },
        env=fields.texts("Env"),
        user=fields.text("User"),
        target=checked_target(fields.text("Target")),
        base=fields.text("Base") or None,
        binds=fields.texts("Binds"),
        show=fields.texts("SandboxShow"),
    )


def _step(fields: Fields) -> Step:
    args = fields.command("Cmd")
    if not args:
        raise BadRequest("a step of a recipe has no Cmd")
    workdir, env = fields.text("WorkingDir"), fields.texts("Env")
    return Step(args, fields.text("User"), workdir, env)


def _file(path: str, fields: Fields) -> File:
    try:
        content = base64.b64decode(fields.text("Content"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"Files[{path}].Content is not base64", str(error)) from None
    return File(content, fields.integer("Mode", 0o644) & 0o7777)


class Recipes:
    """Builds each recipe at most once, whoever asks."""

    def __init__(self, floors: Floors, run: Run) -> None:
        self._floors = floors
        self._run = run
        self._flights = SingleFlight()

    @property
    def building(self) -> int:
        """How many builds are under way."""
        return len(self._flights)

    async def build(
        self,
        body: Mapping[str, Any],
        progress: Progress | None = None,
        cache: SnapshotCache | None = None,
    ) -> Snapshot:
        """The snapshot of a recipe, fetched from the cache or built now if there is none.

        Raises NoSuchImage, NoSuchSnapshot for its base, BadRequest with the output when a step
        fails; then nothing is sealed and nothing is left.
        """
        image = self._floors.images.get(Fields(body).text("Image"))
        recipe = parse_recipe(body, image)
        snapshots = self._floors.store.snapshots
        key = recipe.key
        if found := snapshots.get(key):
            return found
        if recipe.base and not snapshots.get(recipe.base):
            raise NoSuchSnapshot.named(recipe.base)
        return await self._flights.join(key, partial(self._made, recipe, key, progress, cache))

    async def _made(
        self,
        recipe: Recipe,
        key: str,
        progress: Progress | None,
        cache: SnapshotCache | None,
    ) -> Snapshot:
        if cache is not None and (found := await cache.look(key)):
            return found
        snapshot = await self._build(recipe, key, progress)
        if cache is not None:
            await cache.keep(key)
        return snapshot

    async def _build(self, recipe: Recipe, key: str, progress: Progress | None) -> Snapshot:
        volumes = self._floors.volumes
        volume = volumes.create(snapshot=recipe.base, scratch=True)
        try:
            await asyncio.to_thread(self._prepare, recipe, volume)
            with ExitStack() as stack:
                binds = self._bound_files(recipe, stack)
                for number, step in enumerate(recipe.steps, 1):
                    if progress:
                        progress({"Step": number, "Of": len(recipe.steps), "Cmd": step.args})
                    result = await self._run(_step_body(recipe, step, volume, binds))
                    if result.exit_code:
                        raise _step_failed(number, len(recipe.steps), step, result)
            return await asyncio.to_thread(volumes.seal, volume, key, recipe.spec)
        except BaseException:
            volumes.remove(volume.name, True)
            raise

    def _prepare(self, recipe: Recipe, volume: Volume) -> None:
        """What the image has at the target, then the recipe's files that lie below it."""
        floors = self._floors
        if recipe.base is None:
            floors.volumes.populate(volume, floors.images.lowers(recipe.image), recipe.target)
        inside = {
            path.removeprefix(f"{recipe.target}/"): file
            for path, file in recipe.files.items()
            if path.startswith(f"{recipe.target}/")
        }
        root = floors.volumes.mount(volume)
        write_beneath(root, inside, open_to_all=recipe.has_users and recipe.base is None)

    def _bound_files(self, recipe: Recipe, stack: ExitStack) -> list[dict[str, Any]]:
        """Mounts for the files that lie elsewhere: steps see them, the snapshot does not."""
        outside = {
            path: file
            for path, file in recipe.files.items()
            if not path.startswith(f"{recipe.target}/")
        }
        if not outside:
            return []
        staged: Path = stack.enter_context(self._floors.store.staging("recipe"))
        mounts = []
        for number, (path, file) in enumerate(outside.items()):
            source = staged / str(number)
            source.write_bytes(file.content)
            source.chmod(file.mode)
            mounts.append({"Type": "bind", "Source": str(source), "Target": path, "ReadOnly": True})
        return mounts


def _step_body(
    recipe: Recipe, step: Step, volume: Volume, binds: list[dict[str, Any]]
) -> dict[str, Any]:
    filled = {
        "Type": "volume",
        "Source": volume.name,
        "Target": recipe.target,
        "VolumeOptions": {"NoCopy": True},
    }
    return {
        "Image": recipe.image.id,
        # A step is the whole command, whatever entrypoint the image has.
        "Entrypoint": [""],
        "Cmd": step.args,
        "User": step.user or recipe.user,
        "WorkingDir": step.workdir,
        "Env": [*recipe.env, *step.env],
        "HostConfig": {
            "Mounts": [filled, *binds],
            "Binds": recipe.binds,
            "SandboxShow": recipe.show,
        },
    }


def _step_failed(number: int, count: int, step: Step, result: RunResult) -> BadRequest:
    output = (result.stdout + result.stderr)[-_TAIL:].decode(errors="replace").strip()
    cause = ", killed for want of memory" if result.oom else ""
    return BadRequest(
        f"step {number} of {count} failed: {shlex.join(step.args)}",
        f"exit code {result.exit_code}{cause}; its output: {output or 'none'}",
    )
