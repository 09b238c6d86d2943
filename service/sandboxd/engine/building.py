"""Builds of images: the commands of their RUN steps, over the launcher; and the cache's pruning.

A step is the launcher's business like any container, without one: the same profile, an upper
directory on the store's disk, and no record of it anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.build_mounts import opened
from sandboxd.engine.floors import Floors
from sandboxd.engine.names import new_id
from sandboxd.engine.program import Program
from sandboxd.engine.trees import tree_size
from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.spec import ContainerSpec, Process, Rootfs

if TYPE_CHECKING:
    from sandboxd.images import Image
    from sandboxd.images.build.cache import CacheDirectories, StepCache
    from sandboxd.images.build.context import Context
    from sandboxd.images.build.file_digests import KnownFiles
    from sandboxd.images.build.options import BuildOptions, Report
    from sandboxd.images.build.steps import RunStep

log = logging.getLogger("sandboxd.engine")

_HOSTNAME: Final = "sandbox-build"
_HOSTS: Final = f"127.0.0.1\tlocalhost {_HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_NO_DNS: Final = "# no network, no name server\n"
_NETWORKS: Final = frozenset(("", "default", "none", "bridge"))


class Building:
    """Builds images; it is the runner of their steps."""

    def __init__(self, floors: Floors) -> None:
        self._floors, self._idmap = floors, floors.store.idmap
        self._cached: tuple[StepCache, CacheDirectories, KnownFiles] | None = None
        self.under_way = 0

    async def build(self, context: Context, options: BuildOptions, report: Report) -> Image:
        """See `images.build.builder.build_image`."""
        # Most services never build anything: the parser is not worth its memory to them.
        from sandboxd.images.build.builder import build_image
        from sandboxd.images.build.shop import Tools

        refuse_network(options.network)
        floors = self._floors
        tools = Tools(floors.store, floors.images, self._idmap, self, *self._caches())
        self.under_way += 1
        try:
            return await build_image(tools, context, options, report)
        finally:
            self.under_way -= 1

    def cached(self) -> list[dict[str, Any]]:
        """The steps of the cache that have a layer, as rows of GET /system/df."""
        database, rows = self._floors.store.database, []
        for key, row in database.build_cache.all().items():
            if layer := database.layers.get(row["layer"]):
                used = datetime.fromtimestamp(row["used"], UTC).isoformat().replace("+00:00", "Z")
                rows.append(
                    {
                        "ID": key.removeprefix("sha256:"),
                        "Type": "regular",
                        "Description": "",
                        "InUse": False,
                        "Shared": True,
                        "Size": layer["size"],
                        "CreatedAt": row["created"],
                        "LastUsedAt": used,
                        "UsageCount": 1,
                    }
                )
        return rows

    def prune(self, unused_for: float = 0.0) -> tuple[list[str], int]:
        """Empty the cache of what was not used for so many seconds; names and bytes. Blocks.

        Cache mounts go only when everything goes.
        """
        cache, directories, files = self._caches()
        keys, size = list(cache.prune(unused_for)), 0
        if not unused_for:
            files.forget()
            for path in directories.paths():
                size += tree_size(path)
            keys += [path.name for path in directories.prune()]
        return keys, size + self._floors.store.collect().size

    async def run(self, step: RunStep) -> int:
        """The runner's side of `StepRunner`."""
        refuse_network(step.network)
        rootfs = self._rootfs(step)
        with opened(step.mounts, step.staged) as mounts:
            spec = ContainerSpec(
                id=new_id(),
                hostname=_HOSTNAME,
                process=self._process(step),
                rootfs=rootfs,
                mounts=mounts,
                hosts=_HOSTS,
                resolv_conf=_NO_DNS,
            )
            launch = partial(self._floors.launcher.start, spec)
            program = await Program.start(launch, _Sink(step.output))
        program.watch()
        try:
            code = await asyncio.shield(program.running.exited)
        except asyncio.CancelledError:
            program.kill(signal.SIGKILL)
            await asyncio.wait([program.running.exited])
            raise
        finally:
            program.finish()
        if rootfs.host is not None:
            _check_host_writes(step.staged, rootfs.host.show)
        return code

    def _process(self, step: RunStep) -> Process:
        return Process(
            args=step.args,
            env=step.env,
            cwd=step.cwd,
            user=step.user,
            capabilities=DEFAULT_CAPABILITIES,
            rlimits=self._floors.rlimits,
            fake_ownership=self._idmap.kind == "single",
        )

    def _rootfs(self, step: RunStep) -> Rootfs:
        upper = str(step.staged)
        if step.on_host:
            places = step.staged / "places"
            places.mkdir(mode=0o755)
            return self._floors.images.host_rootfs(step.lowers, upper, places)
        return Rootfs(tuple(str(path) for path in step.lowers), upper)

    def _caches(self) -> tuple[StepCache, CacheDirectories, KnownFiles]:
        from sandboxd.images.build.cache import CacheDirectories, StepCache
        from sandboxd.images.build.file_digests import KnownFiles

        if self._cached is None:
            store = self._floors.store
            self._cached = StepCache(store), CacheDirectories(store), KnownFiles(store)
        return self._cached


class _Sink(Outlet):
    """Where a step's output goes; standard output and error are one, as in docker build."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        super().__init__()
        self._output = output

    def put(self, stream: int, data: bytes) -> None:
        self._output(data)


def refuse_network(network: str) -> None:
    """Raises CannotEnforce for a network that a step cannot have."""
    if network not in _NETWORKS:
        why = "a build step's network is its own and empty"
        raise CannotEnforce(f"--network {network}", why, "--network none")


def _check_host_writes(staged: Path, shown: Sequence[str]) -> None:
    """On `host` each top-level directory is an overlay of its own: what was not touched goes, and
    nothing can be made beside them, but for the places where host paths are shown."""
    upper = staged / "u"
    for entry in list(os.scandir(upper)):
        if not os.listdir(entry.path):
            os.rmdir(entry.path)
    made = _made_beside(staged / "root", "", shown)
    if made is not None:
        why = "a step on the image host can write below the machine's top-level directories only"
        raise BadRequest(f"{made} of the image host", why, "write below /usr/local, say")


def _made_beside(root: Path, below: str, shown: Sequence[str]) -> str | None:
    """The first file or filled directory at `below` that is no place of a shown path."""
    try:
        entries = list(os.scandir(f"{root}{below}"))
    except FileNotFoundError:
        return None
    for entry in entries:
        path = f"{below}/{entry.name}"
        if path in shown or entry.is_symlink():
            continue
        if not entry.is_dir(follow_symlinks=False):
            return path
        leads_to_shown = any(each.startswith(f"{path}/") for each in shown)
        made = _made_beside(root, path, shown) if leads_to_shown else None
        if made is not None or (not leads_to_shown and os.listdir(entry.path)):
            return made or path
    return None
