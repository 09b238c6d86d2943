"""The service process: from a shell's environment to a listening socket, and down again.

Order matters. The state's lock is taken first (one service for each state root), the socket is
bound while the process still is the user outside, then it enters the outer user namespace,
single-threaded, and only then are the floors built and clients let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from sandboxd import __version__, paths
from sandboxd.errors import Conflict, HostLacks, SandboxError
from sandboxd.linux import cgroup, idmap, mount
from sandboxd.listener import listen
from sandboxd.outer import enter, log_to_stderr

if TYPE_CHECKING:
    from sandboxd.api.surface import Activity
    from sandboxd.engine import Engine
    from sandboxd.launcher.client import Launcher

log: Final = logging.getLogger("sandboxd")

WARM_SLOTS: Final = 8
_IDLE_LOOK: Final = 1.0
_LOCK_SECONDS: Final = 1.0
"""A registry over the same state holds the service's lock for a moment while it collects."""
_SNAPSHOT_LIFE: Final = 30 * 86400.0
"""Seconds for which a snapshot that no volume starts from is kept for the next test run."""
_MEMORY_SHARE: Final = "25%"
"""Of the machine's memory: what containers of leases can write to their roots, all together."""


@dataclass(frozen=True, slots=True)
class Options:
    """`ready_fd` is told `ready` or `error JSON`; `idle` is in seconds, 0 for never."""

    ready_fd: int | None = None
    idle: float = 300.0
    idmap: idmap.Kind | None = None


def serve(options: Options) -> int:
    """Run the service until it is told to stop or has been idle; the exit status."""
    log_to_stderr()
    os.umask(0o077)
    told = _Starter(options.ready_fd)
    try:
        with contextlib.ExitStack() as stack:
            root = paths.private_directory(paths.state_root())
            stack.enter_context(_only_service_of(root))
            path = paths.socket_path()
            listener = stack.enter_context(listen(path))
            ids = enter(options.idmap)
            asyncio.run(_Service(root, path, listener, ids, options).run(told))
    except SandboxError as error:
        log.error("%s", error)
        told.failed(error)
        return 1
    return 0


class _Starter:
    """Whoever started the service and waits for one line on a pipe."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def ready(self) -> None:
        self._tell("ready\n")

    def failed(self, error: SandboxError) -> None:
        self._tell(f"error {json.dumps(error.to_wire())}\n")

    def _tell(self, line: str) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, line.encode())
        os.close(self._fd)
        self._fd = None


@contextlib.contextmanager
def _only_service_of(root: Path) -> Iterator[None]:
    lock = FileLock(root / "service.lock")
    try:
        lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.02)
    except Timeout:
        why = "another service uses this state"
        raise Conflict(f"{root}", why, "sandboxctl service stop, or another SANDBOX_ROOT") from None
    try:
        yield
    finally:
        lock.release()


def _allow_many_descriptors() -> None:
    """Some five for each running container; the fork server, and so containers, keep the old limit.

    The soft limit of 1024 is for programs that use select(2): getrlimit(2), RLIMIT_NOFILE.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _mount_memory(path: Path) -> None:
    """A tmpfs in this mount namespace: in those of warm slots too, and nowhere else."""
    path.mkdir(mode=0o700, exist_ok=True)
    mount.mount_private_tmpfs(str(path), _MEMORY_SHARE)


class _Service:
    """The floors, built once, and the reasons for which the process ends."""

    def __init__(
        self, root: Path, path: Path, listener: socket.socket, ids: idmap.IdMap, options: Options
    ) -> None:
        self._root, self._path, self._listener = root, path, listener
        self._ids, self._options = ids, options
        self._stop = asyncio.Event()
        self._failed = False
        self._cgroups: cgroup.Subtree | None = None

    async def run(self, told: _Starter) -> None:
        # The fork server starts before anything heavy is imported, while there is one thread.
        from sandboxd.launcher.client import Launcher

        (self._root / "stage").mkdir(mode=0o700, exist_ok=True)
        memory = self._path.parent / "memory"
        _mount_memory(memory)
        # Before the first child: version 2 lets nobody share a cgroup with limits below it.
        self._cgroups = cgroup.claim(f"sandboxd-{zlib.crc32(bytes(self._root)):08x}")
        launcher = await Launcher.spawn(
            self._ids, store=str(self._root), memory=str(memory), warm=WARM_SLOTS
        )
        _allow_many_descriptors()
        try:
            await self._with_floors(launcher, memory, told)
        finally:
            await launcher.close()
        if self._failed:
            raise HostLacks("the launcher ended", launcher.lost.result(), "sandboxctl service logs")

    async def _with_floors(self, launcher: Launcher, memory: Path, told: _Starter) -> None:
        from sandboxd.api import serve as serve_api
        from sandboxd.api.surface import Activity
        from sandboxd.engine import Engine
        from sandboxd.images import Images
        from sandboxd.store import Store
        from sandboxd.volumes import Volumes

        runtime = self._path.parent
        store = Store(self._root, self._ids)
        shown = sorted({sys.prefix, sys.base_prefix})
        images = Images(store, self._ids, show=shown, hide=[str(self._root), str(runtime)])
        volumes = Volumes(store, self._ids, runtime)
        engine = Engine(
            store,
            images,
            volumes,
            launcher,
            self._ids,
            root=self._root,
            memory=memory,
            cgroups=self._cgroups,
        )
        await engine.start()
        reclaimed = store.collect(unused_for=_SNAPSHOT_LIFE)
        if reclaimed.snapshots:
            log.info("%d snapshots unused for 30 days are gone", len(reclaimed.snapshots))
        self._watch(launcher)
        activity = Activity()
        idle = asyncio.create_task(self._stop_when_idle(engine, activity))
        log.info("sandboxd %s on %s", __version__, self._path)
        told.ready()
        try:
            await serve_api(engine, self._listener, self._stop, activity=activity)
        finally:
            idle.cancel()
            await engine.close()
            volumes.close()
            images.close()
            store.close()
            log.info("stopped")

    def _watch(self, launcher: Launcher) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        launcher.lost.add_done_callback(self._on_launcher_lost)

    def _on_launcher_lost(self, lost: asyncio.Future[str]) -> None:
        log.critical("%s: stopping", lost.result())
        self._failed = True
        self._stop.set()

    async def _stop_when_idle(self, engine: Engine, activity: Activity) -> None:
        if self._options.idle <= 0:
            return
        while True:
            await asyncio.sleep(min(_IDLE_LOOK, self._options.idle))
            quiet = time.monotonic() - activity.last
            if engine.idle and activity.in_flight == 0 and quiet >= self._options.idle:
                log.info("idle for %.0f s", quiet)
                self._stop.set()
                return
