"""What a service holds: counted before and after, the difference is what it leaves behind."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.service import Service

SETTLE_LIMIT = 5.0
"""Seconds that clean-up in the background may take before a difference counts."""


@dataclass(frozen=True)
class Holdings:
    """Counts; `processes`, `descriptors` and `mounts` over the service and all it started."""

    processes: int
    mounts: int
    cgroups: int
    directories: int
    descriptors: int

    def beyond(self, before: Holdings) -> dict[str, int]:
        """How much more of each there is now."""
        earlier = asdict(before)
        return {name: count - earlier[name] for name, count in asdict(self).items()}


_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""Of a process that ends meanwhile; proc(5) answers EACCES for its namespaces."""


def count(service: Service) -> Holdings:
    pids = list(family(service.pid))
    mount_tables = {_link(pid, "ns/mnt"): pid for pid in pids}
    return Holdings(
        processes=len(pids),
        mounts=sum(_lines(pid, "mountinfo") for pid in mount_tables.values())
        + _lines(os.getpid(), "mountinfo"),
        cgroups=_cgroups(service.root),
        directories=_directories(service.root) + _directories(service.socket.parent),
        descriptors=sum(_entries(pid, "fd") for pid in pids),
    )


def count_steady(service: Service) -> Holdings:
    """Count until it is the same eight times in a row: its pools are full again."""
    deadline = time.monotonic() + SETTLE_LIMIT
    counts = [count(service)]
    while counts[-8:] != [counts[-1]] * 8 and time.monotonic() < deadline:
        time.sleep(0.05)
        counts.append(count(service))
    return counts[-1]


def count_settled(service: Service, before: Holdings) -> Holdings:
    """Count until nothing is left beyond `before`, or until SETTLE_LIMIT is over."""
    deadline = time.monotonic() + SETTLE_LIMIT
    while True:
        now = count(service)
        if not any(now.beyond(before).values()) or time.monotonic() > deadline:
            return now
        time.sleep(0.05)


def family(pid: int) -> Iterator[int]:
    """`pid` and its descendants, as far as they still run."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += children.get(found, ())


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except _GONE:
        return None


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except _GONE:
        return ""


def _lines(pid: int, name: str) -> int:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().count("\n")
    except _GONE:
        return 0
    except OSError as error:
        if error.errno != errno.EINVAL:  # mountinfo of one that has ended and is not reaped
            raise
        return 0


def _entries(pid: int, name: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{name}"))
    except _GONE:
        return 0


def _cgroups(root: Path) -> int:
    """Groups in the subtree that a service names after its state directory."""
    subtree = f"/sandboxd-{zlib.crc32(bytes(root)):08x}"
    return sum(subtree in path for path, _, _ in os.walk("/sys/fs/cgroup"))


def _directories(base: Path) -> int:
    return sum(len(names) for _, names, _ in os.walk(base))
