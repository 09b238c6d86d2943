"""Each launcher test runs its coroutine in a forked child that has entered the outer namespace."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sandboxd.launcher.client import Launcher, Running, Stdio
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.spec import ContainerSpec, Mount, Process, Rootfs
from sandboxd.linux import idmap, seccomp
from sandboxd.linux.syscall_numbers import NUMBERS


class Keeping(Launcher):
    """Knows what a scenario has started, to give back its descriptors."""

    started: ClassVar[list[Running]] = []

    async def start(
        self, spec: ContainerSpec, stdio: Stdio, *, network: int | None = None
    ) -> Running:
        self.started.append(await super().start(spec, stdio, network=network))
        return self.started[-1]

    async def exec(
        self, target: Running, process: Process, stdio: Stdio, cgroups: tuple[str, ...] = ()
    ) -> Running:
        self.started.append(await super().exec(target, process, stdio, cgroups))
        return self.started[-1]


@dataclass
class Bench:
    """A launcher in the outer namespace, and a busybox tree to start containers from."""

    launcher: Launcher
    tree: Path
    ids: idmap.IdMap

    def spec(self, *args: str, mounts: tuple[Mount, ...] = (), **process: Any) -> ContainerSpec:
        process.setdefault("capabilities", DEFAULT_CAPABILITIES)
        env = ("PATH=/bin", *process.pop("env", ()))
        rootfs = process.pop("rootfs", Rootfs((str(self.tree),)))
        return ContainerSpec(
            "c" * 64,
            "bench",
            Process(args, env=env, **process),
            rootfs,
            mounts,
            hosts="127.0.0.1 bench\n",
        )

    async def run(self, spec: ContainerSpec) -> tuple[int, str]:
        """Exit code, and standard output and error together."""
        reader, writer = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            running = await self.launcher.start(spec, (null, writer, writer))
        finally:
            os.close(writer)
            os.close(null)
        return await self.finish(running, reader)

    async def finish(self, running: Running, reader: int) -> tuple[int, str]:
        with open(reader, "rb") as pipe:
            output = await asyncio.to_thread(pipe.read)
        code = await asyncio.wait_for(running.exited, 20)
        running.close()
        return code, output.decode()

    async def sh(self, script: str, **options: Any) -> tuple[int, str]:
        return await self.run(self.spec("sh", "-c", script, **options))


Scenario = Callable[[Bench], Awaitable[Any]]


@pytest.fixture(params=["own", "single", "untraced"])
def bench(
    request: pytest.FixtureRequest, in_child: Callable[..., Any], busybox_tar: Path
) -> Iterator[Callable[[Scenario], Any]]:
    """Call it with a coroutine function: it runs under this user's map and a single-id map, and
    where nobody may trace, so that slots have no twins."""
    base = Path(tempfile.mkdtemp(prefix="sbx-launcher-", dir="/tmp"))
    ids = idmap.single() if request.param == "single" else idmap.choose()
    deny = _refuse_ptrace if request.param == "untraced" else None
    yield lambda scenario: in_child(partial(_run, base, ids, busybox_tar, scenario, deny))
    shutil.rmtree(base, ignore_errors=True)
    shutil.rmtree(base.with_name(f"{base.name}-memory"), ignore_errors=True)


def _refuse_ptrace() -> None:
    """As a container's default filter did before Linux 4.8."""
    filter_ = seccomp.Program()
    filter_.load(seccomp.NUMBER_OFFSET)
    filter_.branch(seccomp.EQUAL, NUMBERS[os.uname().machine]["ptrace"], "refuse")
    filter_.ret(seccomp.RET_ALLOW)
    filter_.mark("refuse")
    filter_.ret(seccomp.ret_errno(errno.EPERM))
    seccomp.PreparedFilter(filter_.assemble()).install()


def _run(
    base: Path,
    ids: idmap.IdMap,
    tar: Path,
    scenario: Scenario,
    deny: Callable[[], None] | None = None,
) -> Any:
    os.umask(0o022)
    idmap.enter_outer_namespace(ids)
    if deny is not None:
        deny()
    tree, stage = base / "tree", base / "stage"
    tree.mkdir(mode=0o755)
    stage.mkdir()
    memory = base.with_name(f"{base.name}-memory")
    memory.mkdir()
    subprocess.run(["tar", "-xf", tar, "-C", tree, "--no-same-owner"], check=True)

    async def whole() -> Any:
        launcher = await Keeping.spawn(ids, store=str(base), memory=str(memory), warm=2)
        try:
            return await scenario(Bench(launcher, tree, ids))
        finally:
            await launcher.close()
            for running in launcher.started:
                running.close()

    gc.collect()  # what tests before this one have left is theirs
    try:
        with warnings.catch_warnings(record=True, action="always") as complaints:
            result = asyncio.run(whole())
            gc.collect()
    finally:
        shutil.rmtree(tree)
    left_open = [str(each.message) for each in complaints if each.category is ResourceWarning]
    assert not left_open, left_open
    return result
