"""Engine tests that need a kernel run a coroutine in a forked child, inside the outer namespace.

The child builds every floor below the engine for real: store, images, volumes and launcher.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandboxd.engine import Attachment, Container, Engine
from sandboxd.images import Images
from sandboxd.launcher.client import Launcher
from sandboxd.linux import cgroup, idmap
from sandboxd.store import Store
from sandboxd.volumes import Volumes

IMAGE = "busybox:latest"


@dataclass
class Bench:
    """An engine with the image busybox, and short ways to use it."""

    engine: Engine
    base: Path
    ids: idmap.IdMap
    floors: Callable[[], Any]
    """Another engine over the same state: only once this one is closed."""

    async def make(self, *cmd: str, name: str | None = None, lease: Any = None, **body: Any) -> Any:
        """A container that runs `cmd`."""
        return await self.engine.create(
            {"Image": IMAGE, "Cmd": list(cmd), **body}, name, lease=lease
        )

    async def up(self, *cmd: str, **options: Any) -> Container:
        """A container that was started."""
        container: Container = await self.make(*cmd, **options)
        await self.engine.start_container(container)
        return container

    async def sh(self, script: str, **body: Any) -> Any:
        """The result of a run of a shell script."""
        options = {key: body.pop(key) for key in ("timeout", "stdin", "lease") if key in body}
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], **body}
        return await self.engine.run(body, **options)

    async def exec(self, container: Container, *cmd: str, **body: Any) -> tuple[int, bytes]:
        """Exit code and output of an exec."""
        streams = {"AttachStdout": True, "AttachStderr": True}
        id = await self.engine.exec_create(container, {"Cmd": list(cmd), **streams, **body})
        attachment = await self.engine.exec_start(id)
        output = await self.drained(attachment)
        return self.engine.exec_inspect(id)["ExitCode"], output

    @staticmethod
    async def drained(attachment: Attachment | None) -> bytes:
        """All that an attachment gives until its end."""
        assert attachment is not None
        return b"".join([data async for _, data in attachment])

    def logged(self, container: Container) -> bytes:
        """Standard output and error of all its runs."""
        out, err = container.log.collected()
        return out + err

    def directories(self) -> list[str]:
        """What the state root holds of containers."""
        return sorted(os.listdir(self.base / "state" / "containers"))


Scenario = Callable[[Bench], Awaitable[Any]]
Run = Callable[[Scenario], Any]


@pytest.fixture
def bench(in_child: Callable[..., Any], busybox_tar: Path) -> Iterator[Run]:
    """Call it with a coroutine function; it runs under this user's widest id map."""
    yield from _bench(in_child, busybox_tar, idmap.choose())


@pytest.fixture
def any_bench(ids: idmap.IdMap, in_child: Callable[..., Any], busybox_tar: Path) -> Iterator[Run]:
    """The same under this user's widest map and under a map of a single id."""
    yield from _bench(in_child, busybox_tar, ids)


def _bench(in_child: Callable[..., Any], tar: Path, ids: idmap.IdMap) -> Iterator[Run]:
    base = Path(tempfile.mkdtemp(prefix="sbx-engine-", dir="/tmp"))
    yield lambda scenario: in_child(partial(_run, base, ids, tar, scenario))
    shutil.rmtree(base, ignore_errors=True)


def _run(base: Path, ids: idmap.IdMap, tar: Path, scenario: Scenario) -> Any:
    os.umask(0o077)
    idmap.enter_outer_namespace(ids)
    root, runtime = base / "state", base / "run"
    memory = base / "memory"
    for path in (root, root / "stage", memory, runtime):
        path.mkdir(mode=0o700)

    @asynccontextmanager
    async def floors() -> Any:
        groups = cgroup.claim(f"sandboxd-test-{os.getpid()}")
        launcher = await Launcher.spawn(ids, store=str(root), memory=str(memory), warm=2)
        store = Store(root, ids)
        volumes = Volumes(store, ids, runtime)
        images = Images(store, ids, hide=[str(root), str(runtime)])
        engine = Engine(
            store, images, volumes, launcher, ids, root=root, memory=memory, cgroups=groups
        )
        await engine.start()
        try:
            yield Bench(engine, base, ids, floors)
        finally:
            await engine.close()
            await launcher.close()
            volumes.close()
            images.close()
            store.close()

    async def whole() -> Any:
        async with floors() as bench:
            with tar.open("rb") as stream:
                bench.engine.images.import_rootfs(stream, IMAGE, changes=['CMD ["sh"]'])
            return await scenario(bench)

    try:
        return asyncio.run(whole())
    finally:
        shutil.rmtree(root, ignore_errors=True)
