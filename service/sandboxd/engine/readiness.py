"""Readiness: a listening socket inside the container's network namespace, or its death.

The kernel's own tables are read through /proc/PID/net (proc_pid_net(5)), which show the namespace
of the process, whatever ours is. No log text, no connection that the server would have to serve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sandboxd.engine.container import Container
from sandboxd.errors import BadRequest, Conflict, TimedOut

_SHORTEST: Final = 0.001
_LONGEST: Final = 0.01
_SHARE: Final = 0.1
"""Looks are as far apart as a tenth of the wait so far: late by that at most, and never many."""
_LAST_LINES: Final = 20
_LISTEN: Final = "0A"
"""TCP_LISTEN of include/net/tcp_states.h."""
_ACCEPTS: Final = 0x00010000
"""__SO_ACCEPTCON in the flags of proc_net_unix."""


class Probe(Protocol):
    def sees(self, pid: int) -> bool:
        """Whether its namespace has such a socket. Raises OSError when the process is gone."""

    def describe(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TcpProbe:
    port: int

    def sees(self, pid: int) -> bool:
        return any(self.port in _listening_ports(pid, table) for table in ("tcp", "tcp6"))

    def describe(self) -> str:
        return f"nobody listens on TCP port {self.port}"


@dataclass(frozen=True, slots=True)
class UnixProbe:
    path: str

    def sees(self, pid: int) -> bool:
        return any(self._is(bound) for bound in _listening_paths(pid))

    def _is(self, bound: str) -> bool:
        """The table has the path as it was given to bind(2): it may be relative."""
        return bound == self.path or (
            not bound.startswith(("/", "@")) and self.path.endswith("/" + bound.removeprefix("./"))
        )

    def describe(self) -> str:
        return f"nobody listens on {self.path}"


def parse_probe(probe: Mapping[str, Any]) -> Probe:
    """`{"tcp": PORT}` or `{"unix": PATH}`. Raises BadRequest."""
    if len(probe) == 1:
        match dict(probe):
            case {"tcp": int(port)} if 0 < port < 1 << 16:
                return TcpProbe(port)
            case {"unix": str(path)} if path.startswith("/"):
                return UnixProbe(path)
    raise BadRequest(f"invalid probe {dict(probe)!r}", 'give {"tcp": PORT} or {"unix": "/PATH"}')


async def until_ready(container: Container, probe: Probe, timeout: float) -> float:
    """Wait for the socket; the seconds since the container's start.

    Raises Conflict as soon as the container is dead, with its exit code and last log lines, and
    TimedOut with what was seen last.
    """
    ended = container.wait("not-running")
    began = time.monotonic()
    deadline = began + timeout
    while not ended.done():
        if _seen(container, probe):
            return (time.time_ns() - container.facts.started) / 1e9
        now = time.monotonic()
        if now >= deadline:
            raise TimedOut(
                f"container {container.name} is not ready after {timeout:g} s",
                f"it is {container.state}, {probe.describe()}{_last_lines(container)}",
            )
        interval = min(max(_SHORTEST, (now - began) * _SHARE), _LONGEST)
        await asyncio.wait([ended], timeout=min(interval, deadline - now))
    raise Conflict(f"container {container.name} cannot get ready", _why_dead(container))


def _seen(container: Container, probe: Probe) -> bool:
    if container.program is None:
        return False
    try:
        return probe.sees(container.program.running.pid)
    except (FileNotFoundError, ProcessLookupError):
        # It has just died: the next look finds the exit code.
        return False


def _why_dead(container: Container) -> str:
    facts = container.facts
    if not facts.started:
        return f"it is {facts.state}, not running"
    cause = ", killed for want of memory" if facts.oom_killed else ""
    return f"it ended with exit code {facts.exit_code}{cause}{_last_lines(container)}"


def _last_lines(container: Container) -> str:
    lines = container.log.last_lines(_LAST_LINES).decode(errors="replace").rstrip("\n")
    return f"; last log lines:\n{lines}" if lines else "; it has written nothing"


def _listening_ports(pid: int, table: str) -> set[int]:
    """The ports in state LISTEN of /proc/PID/net/tcp or tcp6."""
    ports = set()
    for row in _rows(pid, table):
        columns = row.split(None, 4)
        if columns[3] == _LISTEN:
            ports.add(int(columns[1].rpartition(":")[2], 16))
    return ports


def _listening_paths(pid: int) -> list[str]:
    """The paths of listening sockets in /proc/PID/net/unix, `@name` for abstract ones."""
    paths = []
    for row in _rows(pid, "unix"):
        columns = row.split(None, 7)
        if len(columns) == 8 and int(columns[3], 16) & _ACCEPTS:
            paths.append(columns[7].rstrip("\n"))
    return paths


def _rows(pid: int, table: str) -> list[str]:
    with open(f"/proc/{pid}/net/{table}", errors="surrogateescape") as file:
        return file.readlines()[1:]
