"""RUN in a stage: its command, its mounts, its key, and the layer that its writes become."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxd.errors import BuildFailed
from sandboxd.images.build.cache import step_key
from sandboxd.images.build.configuring import arguments_of, shown
from sandboxd.images.build.instructions import SCRIPT, Run
from sandboxd.images.build.mounts import SecretMount, parse_mount
from sandboxd.images.build.run_mounts import RunMounts
from sandboxd.images.build.shop import Shop, empty_directory
from sandboxd.images.build.steps import FileMount, RunStep, StepMount, TreeMount
from sandboxd.images.build.union import Union
from sandboxd.threads import in_thread

if TYPE_CHECKING:
    from sandboxd.images.build.stage_build import StageBuild

_TAIL: Final = 4096
"""Bytes of a failed command's output that the error quotes."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class RunInstruction:
    shop: Shop
    stage: StageBuild
    args: tuple[str, ...]
    environment: dict[str, str]
    network: str
    mounts: RunMounts
    script: str
    key: str

    @classmethod
    async def prepared(cls, stage: StageBuild, run: Run) -> RunInstruction:
        """Raises BadRequest for mounts that cannot be; nothing is run."""
        shop, expansion = stage.shop, stage.scope.expansion()
        requests = [parse_mount(expansion.word(text), stage.workdir) for text in run.mounts]
        mounts = RunMounts(shop, stage.stage.index, requests)
        args = arguments_of(run.command, stage.config)
        network = expansion.word(run.network) or shop.options.network or "default"
        environment = {"PATH": _PATH, **stage.scope.command_environment()}
        key = step_key(
            stage.chain.key,
            "RUN",
            args,
            run.script,
            stage.scope.environment,
            stage.scope.arguments,
            stage.config.get("User") or "",
            stage.workdir,
            network,
            await mounts.ingredients(),
            stage.stage.platform,
            shop.tools.idmap.kind,
        )
        return cls(shop, stage, args, environment, network, mounts, run.script, key)

    @property
    def shown(self) -> str:
        """As the history shows it, with the arguments that it saw."""
        seen = self.stage.scope.arguments
        told = [f"|{len(seen)}", *(f"{name}={value}" for name, value in seen.items())]
        return " ".join(["RUN", *(told if seen else []), shown(self.args)])

    async def make(self) -> str:
        """Raises BuildFailed with the exit code and the command's last words."""
        shop = self.shop
        shop.say(f" ---> Running in {self.key.removeprefix('sha256:')[:12]}\n")
        staged = shop.fresh_directory("run")
        output = _Output(shop)
        async with self.mounts.opened() as mounts:
            if self.script:
                mounts = [*mounts, FileMount(SCRIPT, self.script.encode(), 0o755)]
            lowers = await in_thread(partial(self._lowers, mounts, staged))
            config = self.stage.config
            environment = {**self.environment, **self._secrets()}
            code = await shop.tools.runner.run(
                RunStep(
                    args=self.args,
                    env=tuple(f"{name}={value}" for name, value in environment.items()),
                    cwd=self.stage.workdir,
                    user=str(config.get("User") or ""),
                    lowers=lowers,
                    on_host=self.stage.chain.on_host,
                    staged=staged,
                    mounts=tuple(mounts),
                    network=self.network,
                    output=output.put,
                )
            )
        if code:
            raise _failed(self.args, code, output.tail)
        below = shop.lowers(self.stage.chain) if self.stage.chain.on_host else lowers
        return await in_thread(partial(shop.adopt, staged / "u", below))

    def _secrets(self) -> dict[str, str]:
        """The variables that secrets are asked for in."""
        secrets = self.shop.options.secrets
        return {
            each.env: secrets[each.id].decode(errors="surrogateescape")
            for each in self.mounts.requests
            if isinstance(each, SecretMount) and each.env and each.id in secrets
        }

    def _lowers(self, mounts: Sequence[StepMount], staged: Path) -> tuple[Path, ...]:
        """The layers to mount, over a directory with the mount points that they do not have.

        So the mount points do not come to lie in the new layer.
        """
        chain = self.stage.chain
        layers = tuple(self.shop.tools.store.layers.path(layer) for layer in chain.stack)
        if chain.on_host:
            return layers
        points = empty_directory(staged / "points")
        with Union(layers) as union:
            for mount in mounts:
                target = union.resolve(mount.target)
                with union.at(target) as node:
                    if node is None and not mount.target.startswith(("/dev/", "/proc/", "/sys/")):
                        _make_point(points, target, _is_file(mount))
        return (*layers, points) if os.listdir(points) or not layers else layers


def _is_file(mount: StepMount) -> bool:
    return isinstance(mount, FileMount) or (isinstance(mount, TreeMount) and mount.is_file)


def _make_point(points: Path, target: Sequence[str], is_file: bool) -> None:
    """A directory of our own, names without links: nobody else has been in there."""
    place = points
    for name in target if not is_file else target[:-1]:
        place = place / name
        if not place.is_dir():
            empty_directory(place)
    if is_file:
        (place / target[-1]).touch(mode=0o644)


class _Output:
    """A command's output on its way to the client, its last bytes kept."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = b""

    def put(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]
        if text := self._decoder.decode(data):
            self._shop.say(text)

    @property
    def tail(self) -> str:
        return self._tail.decode(errors="replace").strip()


def _failed(args: tuple[str, ...], code: int, tail: str) -> BuildFailed:
    command = shown(args)
    what = f"The command '{command}' returned a non-zero code: {code}"
    return BuildFailed(what, f"its last output: {tail or 'none'}", exit_code=code)
