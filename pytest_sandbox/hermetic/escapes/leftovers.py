"""Processes and sockets of a sandbox, as the kernel lists them: what outlives its tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from pytest_sandbox.hermetic.escapes.escape import Escape

_OF_PYTHON: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""They stay until their parent ends, by design."""
_TABLES: Final = ("tcp", "tcp6", "udp", "udp6")
_COUNTED: Final = frozenset(("TCP:", "UDP:", "TCP6:", "UDP6:"))
_TCP_ESTABLISHED, _TCP_CLOSE_WAIT, _TCP_LISTEN = "01", "08", "0A"
_UDP_BOUND: Final = "07"
_ACCEPTING: Final = 0x10000
"""__SO_ACCEPTCON: the unix socket listens; proc_pid_net(5)."""
_COMMAND_MAX: Final = 120


class _Row(NamedTuple):
    """A socket of the sandbox's network: what it is called, and its inode."""

    name: str
    inode: str


def left_processes(pid: int) -> list[Escape]:
    """All but pid 1 and those that entered from outside, which are the tests' own."""
    proc = f"/proc/{pid}/root/proc"
    return [
        Escape("processes", "left", _command(proc, number))
        for number in _processes(proc)
        if not _entered_or_ended(proc, number) and not _is_pythons_own(proc, number)
    ]


def counts_of_sockets(pid: int) -> tuple[str, ...]:
    """How many TCP and UDP sockets the sandbox's network has: proc_pid_net(5), sockstat.

    It costs nothing, where for a list of them the kernel walks those of the whole machine.
    """
    found: list[str] = []
    for table in ("sockstat", "sockstat6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as lines:
                rows = [line.split(maxsplit=3) for line in lines]
        except OSError:
            continue
        found += [row[2] for row in rows if row[0] in _COUNTED]
    return tuple(found)


def left_sockets(pid: int, *, inet: bool = True) -> list[Escape]:
    """Those that a process of the sandbox holds: its containers may share the network.

    `inet`: whether to look for others than unix sockets.
    """
    rows = [*(_inet(pid) if inet else ()), *_unix(pid)]
    if not rows:
        return []
    held = {
        inode for number in _processes(f"/proc/{pid}/root/proc") for inode in _held(pid, number)
    }
    return [Escape("sockets", "left", row.name) for row in rows if row.inode in held]


def _processes(proc: str) -> Iterator[int]:
    try:
        numbers = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return iter(())  # the sandbox has died
    return iter(sorted(number for number in numbers if number != 1))


def _entered_or_ended(proc: str, number: int) -> bool:
    """Its parent is in no namespace that this proc(5) shows, or it waits to be reaped."""
    try:
        with open(f"{proc}/{number}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
    except OSError:
        return True
    return parent == "0" or state in "ZX"


def _command(proc: str, number: int) -> str:
    try:
        with open(f"{proc}/{number}/cmdline", "rb") as words:
            line = words.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        line = ""
    return (line[:_COMMAND_MAX] + "…" if len(line) > _COMMAND_MAX else line) or f"pid {number}"


def _is_pythons_own(proc: str, number: int) -> bool:
    try:
        with open(f"{proc}/{number}/cmdline", errors="replace") as words:
            line = words.read()
    except OSError:
        return False
    return any(name in line for name in _OF_PYTHON)


def _inet(pid: int) -> Iterator[_Row]:
    for table in _TABLES:
        protocol = table.removesuffix("6")
        for fields in _rows(pid, table):
            here, there, state, inode = fields[1], fields[2], fields[3], fields[9]
            if state in (_TCP_LISTEN, _UDP_BOUND):
                yield _Row(f"{protocol} {_address(here)}", inode)
            elif state in (_TCP_ESTABLISHED, _TCP_CLOSE_WAIT):
                yield _Row(f"{protocol} {_address(here)} to {_address(there)}", inode)


def _unix(pid: int) -> Iterator[_Row]:
    for fields in _rows(pid, "unix"):
        if int(fields[3], 16) & _ACCEPTING:
            yield _Row(f"unix {fields[7] if len(fields) > 7 else '(unnamed)'}", fields[6])


def _rows(pid: int, table: str) -> Iterator[list[str]]:
    """The lines of a table of the sandbox's network, without its header: proc_pid_net(5)."""
    try:
        with open(f"/proc/{pid}/net/{table}", errors="replace") as lines:
            rows = lines.readlines()[1:]
    except OSError:
        return iter(())
    return (row.split() for row in rows)


def _address(text: str) -> str:
    """`0100007F:1F90` is 127.0.0.1:8080: words in the machine's own order, which is little."""
    address, _, port = text.partition(":")
    packed = b"".join(
        int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)
    )
    import socket

    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    host = socket.inet_ntop(family, packed)
    return f"[{host}]:{int(port, 16)}" if ":" in host else f"{host}:{int(port, 16)}"


def _held(pid: int, number: int) -> Iterator[str]:
    directory = f"/proc/{pid}/root/proc/{number}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
