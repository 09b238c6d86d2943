"""Where the upper directory of a copy-on-write volume goes, by what a first write costs.

Overlayfs copies a file of a lower layer whole at its first write: 1-2 ms for each MiB on disk, half
of that in memory, nothing where the file system shares data between files (xfs, btrfs). So: beside
the snapshot where it shares; in memory what is small and ends with the service; else on disk.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from sandboxd.errors import CannotEnforce
from sandboxd.linux import mount
from sandboxd.volumes.copying import FICLONE

MEMORY_MAX: Final = 256 << 20
"""Bytes of the largest snapshot whose volumes may write into memory."""
_MEMORY_SHARE: Final = 4
"""A snapshot may be as big as this part of the memory that is free."""


class Place(Enum):
    """COPY is no upper directory at all: the snapshot's content is copied in full."""

    DISK = "disk"
    MEMORY = "memory"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the two file systems can: hold an upper directory, share data between files."""

    disk_upper: bool
    memory_upper: bool
    sharing: bool


def choose(
    abilities: Abilities, *, size: int, free_memory: int, ephemeral: bool, asked: str
) -> Place:
    """The place for a volume over a snapshot of `size` bytes; `asked` is "", "disk" or "memory".

    Raises CannotEnforce where the place asked for cannot hold an upper directory.
    """
    able = {Place.DISK: abilities.disk_upper, Place.MEMORY: abilities.memory_upper}
    if asked:
        if not able[Place(asked)]:
            why = "its file system cannot hold an overlay's upper directory"
            raise CannotEnforce(f"upper={asked}", why, "leave the option out")
        return Place(asked)
    fits = size < MEMORY_MAX and size * _MEMORY_SHARE < free_memory
    if ephemeral and fits and abilities.memory_upper and not abilities.sharing:
        return Place.MEMORY
    if abilities.disk_upper:
        return Place.DISK
    return Place.COPY


def probe(disk: Path, memory: Path) -> Abilities:
    """Try it out, in both directories."""
    return Abilities(_holds_upper(disk), _holds_upper(memory), _shares(disk))


def free_memory(tmpfs: Path) -> int:
    """Bytes that are free for the memory file system, by the kernel's estimate: proc_meminfo(5)."""
    room = os.statvfs(tmpfs)
    available = room.f_bavail * room.f_frsize
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return min(available, int(line.split()[1]) * 1024)
    return available


def _holds_upper(directory: Path) -> bool:
    """A trial mount: no upper directory on overlayfs, NFS, or tmpfs before Linux 6.6."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=directory) as trial:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{trial}/{name}")
        try:
            os.setxattr(f"{trial}/upper", "user.probe", b"y")
            os.close(mount.overlay((f"{trial}/lower",), f"{trial}/upper", f"{trial}/work"))
        except OSError:
            return False
        finally:
            # The kernel leaves it with mode 0000.
            with suppress(OSError):
                os.chmod(f"{trial}/work/work", 0o700)
    return True


def _shares(directory: Path) -> bool:
    with (
        tempfile.TemporaryFile(dir=directory) as source,
        tempfile.TemporaryFile(dir=directory) as target,
    ):
        source.write(b"x" * 4096)
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            return False
    return True
