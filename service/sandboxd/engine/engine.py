"""The engine's face: one method for each thing that a client can ask for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.assembly import default_rlimits, mount_plan
from sandboxd.engine.attachments import Attachment
from sandboxd.engine.building import Building
from sandboxd.engine.container import Container
from sandboxd.engine.creation import Creation
from sandboxd.engine.events import Events
from sandboxd.engine.exec_runner import ExecRunner
from sandboxd.engine.execs import Execs
from sandboxd.engine.filters import Filters
from sandboxd.engine.floors import Floors
from sandboxd.engine.inspection import inspect
from sandboxd.engine.leases import Lease, Leases
from sandboxd.engine.lifecycle import Lifecycle
from sandboxd.engine.limits import Limiter
from sandboxd.engine.listing import Listing, count
from sandboxd.engine.memory import Memory
from sandboxd.engine.mounting import Mounting
from sandboxd.engine.persistence import Persistence
from sandboxd.engine.pruning import prune
from sandboxd.engine.readiness import parse_probe, until_ready
from sandboxd.engine.registry import Registry
from sandboxd.engine.runner import Runner, RunResult
from sandboxd.engine.snapshot_desk import SnapshotDesk
from sandboxd.engine.states import State
from sandboxd.engine.volume_use import VolumeUse
from sandboxd.errors import BadRequest, CannotEnforce, Conflict

if TYPE_CHECKING:
    from sandboxd.images import Images
    from sandboxd.launcher.client import Launcher
    from sandboxd.linux.cgroup import Subtree
    from sandboxd.linux.idmap import IdMap
    from sandboxd.store import Store
    from sandboxd.volumes import Volume, Volumes

_CLOSE_SECONDS: Final = 5.0


class Engine:
    """What is alive. All methods raise subclasses of SandboxError; use it from one event loop."""

    def __init__(
        self,
        store: Store,
        images: Images,
        volumes: Volumes,
        launcher: Launcher,
        idmap: IdMap,
        *,
        root: Path,
        memory: Path,
        cgroups: Subtree | None = None,
    ) -> None:
        """`root` is the state root; `memory` a tmpfs that warm slots see, and `cgroups` a subtree:
        both were made before the launcher was forked."""
        self.store, self.images, self.volumes = store, images, volumes
        self.events = Events()
        self._launcher = launcher
        self._info = {"DockerRootDir": str(root)}
        self._status = {"Root": str(root), "IdMap": f"{idmap.kind} ({idmap.size} ids)"}
        rlimits = default_rlimits(idmap)
        floors = Floors(
            store,
            images,
            volumes,
            launcher,
            rlimits,
            root / "containers",
            Memory(memory, store),
        )
        registry, mounting, limiter = Registry(), Mounting(floors), Limiter(cgroups)
        self._persistence = written = Persistence(floors)
        self._registry = registry
        self._limiter = limiter
        self._execs = Execs(floors, self.events)
        self._exec_runner = ExecRunner(self._execs)
        self._lifecycle = Lifecycle(
            floors, registry, mounting, limiter, written, self.events, self._execs
        )
        self._creation = Creation(floors, registry, mounting, limiter, written, self.events)
        self._listing = Listing(registry, images, volumes)
        self._runner = Runner(self._creation, self._lifecycle)
        self._volume_use = VolumeUse(floors, registry, self.events)
        self.builds = Building(floors)
        self.snapshots = SnapshotDesk(floors, self._runner.run, registry, self._volume_use)
        self._leases = Leases(
            partial(self._lifecycle.remove, force=True, volumes=True),
            self._volume_use.release,
            self.snapshots.abandon,
        )

    # The engine's own life

    async def start(self) -> None:
        """Take up the containers of an earlier service; none of them runs any more."""
        for container in self._persistence.restore():
            self._registry.restore(container)
            if container.state in (State.REMOVING, State.DEAD):
                self._lifecycle.finish_removal(container)
        self._persistence.sweep()

    async def close(self) -> None:
        """Kill every container and wait for the ends."""
        for lease in self._leases.list():
            await self.release(lease)
        ends = []
        for container in self._registry:
            if container.program:
                ends.append(container.wait("next-exit"))
                container.program.kill(signal.SIGKILL)
        if ends:
            await asyncio.wait(ends, timeout=_CLOSE_SECONDS)
        self._limiter.close()

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the service ended now."""
        busy = count(self._registry)["ContainersRunning"]
        return not (busy or len(self._leases) or self.snapshots.busy or self.builds.under_way)

    def info(self) -> dict[str, Any]:
        """The engine's part of GET /info."""
        counts = count(self._registry)
        return {**counts, "Images": len(self.images.list({})), **self._info, **self._limiter.info()}

    def status(self) -> dict[str, Any]:
        """The engine's part of GET /sandbox/status."""
        return {
            **self._status,
            "Containers": count(self._registry)["Containers"],
            "Leases": len(self._leases),
            "WarmSlots": self._launcher.warm_slots,
        }

    # Containers

    async def create(
        self,
        body: Mapping[str, Any],
        name: str | None = None,
        platform: str = "",
        lease: Lease | None = None,
    ) -> Container:
        """A container of Docker's create body, not started."""
        return await self._creation.create(body, name, platform, lease)

    def find(self, ref: str) -> Container:
        """By id, unique beginning of one, or name. Raises NoSuchContainer."""
        return self._registry.find(ref)

    def list(
        self, *, all: bool = False, limit: int = -1, filters: Filters, size: bool = False
    ) -> Sequence[dict[str, Any]]:
        """The rows of GET /containers/json, newest first."""
        return self._listing.rows(all=all, limit=limit, filters=filters, size=size)

    def inspect(self, container: Container, size: bool = False) -> dict[str, Any]:
        """The object of GET /containers/{id}/json."""
        about = inspect(container, self.volumes)
        if size:
            about["SizeRw"], about["SizeRootFs"] = self._listing.sizes(container)
        return about

    def mounts(self, container: Container) -> Sequence[str]:
        """The mount operations of its next start, one line each."""
        return mount_plan(container, self.images)

    async def start_container(self, container: Container) -> bool:
        """False when it is running already. Raises StartFailed."""
        return await self._lifecycle.start(container)

    async def stop(
        self, container: Container, timeout: float | None = None, signal: str | None = None
    ) -> bool:
        """False when it was not running. Answers after the death."""
        return await self._lifecycle.stop(container, timeout, signal)

    async def kill(self, container: Container, signal: str = "KILL") -> None:
        """Raises Conflict when it is not running. SIGKILL answers after the death."""
        await self._lifecycle.kill(container, signal)

    async def restart(self, container: Container, timeout: float | None = None) -> None:
        """Stop it if it runs, then start it."""
        await self._lifecycle.restart(container, timeout)

    async def remove(
        self, container: Container, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Answers when its name is free. `volumes` takes its anonymous volumes away too."""
        if link:
            raise BadRequest("remove a link", "there are no links")
        await self._lifecycle.remove(container, force=force, volumes=volumes)

    async def rename(self, container: Container, name: str) -> None:
        self._lifecycle.rename(container, name)

    async def prune(self, filters: Filters) -> Sequence[str]:
        """Remove the containers that do not run; their ids."""
        return await prune(self._registry, self._lifecycle, filters)

    async def pause(self, container: Container) -> None:
        raise CannotEnforce("pause", "no cgroup freezer is used", "kill -STOP by exec")

    async def unpause(self, container: Container) -> None:
        raise Conflict(f"Container {container.id} is not paused")

    def wait(self, container: Container, condition: str = "not-running") -> asyncio.Future[int]:
        """The exit code, when the condition holds; registered at once. Raises BadRequest."""
        return container.wait(condition)

    def attach(
        self,
        container: Container,
        *,
        logs: bool = False,
        stream: bool = True,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Attachment:
        """A client at the container's streams, from before its start on; `logs` replays first."""
        settings = container.settings
        wanted = {number for number, flag in ((1, stdout), (2, stderr)) if flag}
        history = container.log.read(streams=wanted, end=container.log.position) if logs else None
        attachment = Attachment(
            container.outlet,
            tty=settings.tty,
            streams=wanted,
            stdin=container.stdin if stdin and stream else None,
            closes_stdin=settings.stdin_once,
            history=history,
            live=stream,
        )
        self.events.publish("container", "attach", container.id, container.attributes)
        return attachment

    def logs(
        self,
        container: Container,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, bytes) in the order of writing; `since` and `until` in Unix seconds."""
        wanted = {number for number, flag in ((1, stdout), (2, stderr)) if flag}
        return container.log.read(
            streams=wanted,
            since=since,
            until=until,
            timestamps=timestamps,
            tail=tail,
            follow=follow,
        )

    def resize(self, container: Container, rows: int, cols: int) -> None:
        """Raises Conflict when it is not running."""
        if container.program is None:
            raise Conflict(f"container {container.id} is not running")
        container.program.resize(rows, cols)

    async def ready(
        self, container: Container, probe: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Wait for a listening socket: `{"tcp": 5432}` or `{"unix": "/path"}`.

        `Elapsed` is in seconds since the start. Raises Conflict at its death, TimedOut.
        """
        elapsed = await until_ready(container, parse_probe(probe), timeout)
        return {"Elapsed": elapsed}

    # Execs

    async def exec_create(self, container: Container, body: Mapping[str, Any]) -> str:
        """The id of a process that may be started once. Raises Conflict unless it runs."""
        return self._execs.create(container, body)

    def exec_inspect(self, id: str) -> dict[str, Any]:
        return self._execs.find(id).about()

    async def exec_start(
        self,
        id: str,
        *,
        detach: bool = False,
        tty: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Attachment | None:
        """Its streams, or None with `detach`. Raises StartFailed; inspect has the code then.

        Whether it has a terminal was settled at its creation, `tty` says nothing new.
        """
        return await self._execs.start(id, detach=detach, size=size)

    def exec_resize(self, id: str, rows: int, cols: int) -> None:
        self._execs.resize(id, rows, cols)

    # What goes beyond Docker

    async def exec_run(
        self,
        container: Container,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        stdin: bytes = b"",
    ) -> RunResult:
        """Run a command in a container and collect its output. Cancelling it kills the command."""
        return await self._exec_runner.run(container, body, timeout=timeout, stdin=stdin)

    async def run(
        self,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        stdin: bytes = b"",
        lease: Lease | None = None,
    ) -> RunResult:
        """Create, start, wait, collect, remove. Cancelling it kills the container."""
        return await self._runner.run(body, timeout=timeout, stdin=stdin, lease=lease)

    def lease(self, label: str = "") -> Lease:
        """Open a lease; give it back with `release`, whatever happens."""
        return self._leases.open(label)

    def leases(self) -> Sequence[Lease]:
        return self._leases.list()

    def find_lease(self, id: str) -> Lease:
        """Raises NotFound for one that is not open."""
        return self._leases.find(id)

    async def release(self, lease: Lease) -> None:
        """Remove everything made under the lease."""
        await self._leases.release(lease)

    # Volumes, by what the engine knows of their use

    def create_volume(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        snapshot: str | None = None,
        scratch: bool = False,
        lease: Lease | None = None,
    ) -> Volume:
        """A volume that goes with the lease, or the one of that name."""
        return self._volume_use.create(
            name,
            driver=driver,
            labels=labels or {},
            options=options or {},
            snapshot=snapshot,
            scratch=scratch,
            lease=lease,
        )

    def list_volumes(self, filters: Filters) -> Sequence[Volume]:
        return self._volume_use.list(filters)

    def remove_volume(self, name: str, force: bool = False) -> None:
        """Raises Conflict while a container uses it."""
        self._volume_use.remove(name, force)

    def prune_volumes(
        self, filters: Filters, *, named_too: bool = False
    ) -> tuple[Sequence[str], int]:
        """Remove unused volumes; their names and bytes."""
        return self._volume_use.prune(filters, named_too=named_too)
