"""What the launcher is asked to start: plain data, built by the engine, printed by inspect.

A specification crosses a socket as `marshal` data between two processes of one installation; the
descriptors in it travel beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The machine's own root as a read-only image (see `sandboxd.images.host`)."""

    overlays: tuple[tuple[str, str], ...]
    """Top-level name and the overlay's lower directories, topmost first, joined by `:`."""
    binds: tuple[str, ...]
    """Top-level names that hold mounts of their own: bound recursively, read-only."""
    links: tuple[tuple[str, str], ...]
    """Top-level symbolic links: name and target."""
    empty: tuple[str, ...]
    """Top-level names that appear as empty directories."""
    show: tuple[str, ...] = ()
    """Absolute host paths bound at the same place, read-only."""
    hide: tuple[str, ...] = ()
    """Absolute paths covered by an empty file or directory, after all the others."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Layers to stack, topmost first, and where writes go: a directory on disk or the slot's tmpfs."""

    lowers: tuple[str, ...] = ()
    upper: str | None = None
    readonly: bool = False
    host: HostRoot | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume, bind mount or tmpfs at `target`, an absolute path inside the container."""

    target: str
    source_fd: int | None = None
    """A detached mount made by the service; None asks for a fresh tmpfs."""
    readonly: bool = False
    tmpfs_options: str = ""
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """A command and everything that execve(2) and credentials(7) need."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    rows: int = 0
    cols: int = 0
    capabilities: tuple[str, ...] = ()
    seccomp: bool = True
    no_new_privs: bool = True
    rlimits: tuple[tuple[str, int, int], ...] = ()
    init: bool = False
    oom_score_adj: int | None = None

    @classmethod
    def from_wire(cls, values: tuple[Any, ...]) -> Self:
        return cls(*values)

    def to_wire(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container: its names, root file system, mounts and first process."""

    id: str
    hostname: str
    process: Process
    rootfs: Rootfs
    mounts: tuple[Mount, ...] = ()
    domainname: str = ""
    hosts: str = ""
    resolv_conf: str = ""
    shm_size: int = 64 << 20
    sysctls: tuple[tuple[str, str], ...] = ()
    cgroups: tuple[str, ...] = ()
    """Directories of cgroups(7); the service puts the process there before it is told what to do."""
