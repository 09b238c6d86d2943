"""Limits as files of a control group's controllers, in the words of either version: cgroups(7).

Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel name the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

_UNLIMITED: Final = -1


class Limits(Protocol):
    """What a group may use; zero is no limit."""

    @property
    def memory(self) -> int:
        """Bytes."""

    @property
    def memory_swap(self) -> int:
        """Bytes of memory and swap together; 0 is twice the memory, -1 no limit (as Docker)."""

    @property
    def pids(self) -> int: ...

    @property
    def cpu_quota(self) -> int:
        """Microseconds of CPU time in each `cpu_period` (microseconds too)."""

    @property
    def cpu_period(self) -> int: ...

    @property
    def cpu_shares(self) -> int:
        """Weight in version 1's scale: 1024 is usual."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one file of a controller."""

    controller: str
    file: str
    value: str
    optional: bool = False
    """The kernel may be built or booted without it: swap accounting."""


def settings(limits: Limits, version: int) -> tuple[Setting, ...]:
    """The files to write for `limits`, in an order that the kernel accepts."""
    return tuple(_version_2(limits) if version == 2 else _version_1(limits))


def _version_2(limits: Limits) -> Iterator[Setting]:
    if limits.memory:
        yield Setting("memory", "memory.max", str(limits.memory))
        swap = _swap(limits) - limits.memory
        shown = "max" if limits.memory_swap == _UNLIMITED else str(swap)
        yield Setting("memory", "memory.swap.max", shown, optional=True)
    if limits.pids:
        yield Setting("pids", "pids.max", str(limits.pids))
    if limits.cpu_quota:
        yield Setting("cpu", "cpu.max", f"{limits.cpu_quota} {limits.cpu_period}")
    if limits.cpu_shares:
        yield Setting("cpu", "cpu.weight", str(_weight(limits.cpu_shares)))


def _version_1(limits: Limits) -> Iterator[Setting]:
    if limits.memory:
        yield Setting("memory", "memory.limit_in_bytes", str(limits.memory))
        shown = str(_UNLIMITED if limits.memory_swap == _UNLIMITED else _swap(limits))
        yield Setting("memory", "memory.memsw.limit_in_bytes", shown, optional=True)
    if limits.pids:
        yield Setting("pids", "pids.max", str(limits.pids))
    if limits.cpu_quota:
        yield Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period))
        yield Setting("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota))
    if limits.cpu_shares:
        yield Setting("cpu", "cpu.shares", str(limits.cpu_shares))


def _swap(limits: Limits) -> int:
    return limits.memory_swap or 2 * limits.memory


def _weight(shares: int) -> int:
    """Shares 2..262144 on version 2's scale of 1..10000, as runc converts them."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142
