"""Holding a container's processes still while its files are read.

No cgroup freezer is needed, which ordinary users rarely have: every process of the container's pid
namespace is stopped (SIGSTOP, also process 1, which an ancestor namespace may stop:
pid_namespaces(7)), and exactly those go on afterwards.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sandboxd.engine.container import Container
from sandboxd.errors import Conflict
from sandboxd.linux.pidfd import pidfd_open, pidfd_send_signal

_PATIENCE: Final = 10.0
"""Seconds for processes that sleep in the kernel to come back and stop."""
_LOOK_AGAIN: Final = 0.001
_STOPPED: Final = "TtZX"
"""States of proc_pid_stat(5) in which a process changes no file: stopped, traced, dead."""


@asynccontextmanager
async def frozen(container: Container) -> AsyncIterator[None]:
    """No process of the container runs in this block; those that were stopped before stay so.

    Does nothing for one that is not running. Raises Conflict when some process cannot be stopped.
    """
    program = container.program
    if program is None:
        yield
        return
    stopped: dict[int, int] = {}
    try:
        await _stop(container, program.running.pid, stopped)
        yield
    finally:
        for descriptor in stopped.values():
            try:
                pidfd_send_signal(descriptor, signal.SIGCONT)
            except ProcessLookupError:
                pass
            os.close(descriptor)


async def _stop(container: Container, first: int, stopped: dict[int, int]) -> None:
    """Stop processes until none is left that runs: each may have forked before it was reached."""
    deadline = time.monotonic() + _PATIENCE
    while moving := [pid for pid in _processes(first) if _state(pid) not in _STOPPED]:
        for pid in moving:
            if pid not in stopped:
                _stop_one(pid, stopped)
        if time.monotonic() > deadline:
            what = f"commit container {container.name}"
            why = f"process {moving[0]} does not stop"
            raise Conflict(what, why, "commit with --no-pause, or stop the container first")
        await asyncio.sleep(_LOOK_AGAIN)


def _stop_one(pid: int, stopped: dict[int, int]) -> None:
    try:
        descriptor = pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        pidfd_send_signal(descriptor, signal.SIGSTOP)
    except ProcessLookupError:
        os.close(descriptor)
        return
    stopped[pid] = descriptor


def _processes(first: int) -> list[int]:
    """The processes in the same pid namespace as process `first`."""
    try:
        namespace = os.readlink(f"/proc/{first}/ns/pid")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_in(name, namespace)]


def _is_in(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
