"""What the launcher is asked to start: plain data, built by the engine, printed by inspect.

A specification crosses a socket as `marshal` data between two processes of one installation; the
descriptors in it travel beside it. Named tuples, not dataclasses: every page of the fork server is
paid for again at each fork and each exec, and `dataclasses` alone brings 2 MB of them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

DEFAULT_SHM_SIZE: Final = 64 << 20


class HostRoot(NamedTuple):
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
    """Absolute paths covered by an empty file or directory, before what is shown below them."""


class Rootfs(NamedTuple):
    """Layers to stack, topmost first, and where writes go: a directory, or the slot's own tmpfs."""

    lowers: tuple[str, ...] = ()
    upper: str | None = None
    readonly: bool = False
    host: HostRoot | None = None


class Mount(NamedTuple):
    """A volume, bind mount or tmpfs at `target`, an absolute path inside the container."""

    target: str
    source_fd: int | None = None
    """A detached mount made by the service; None asks for a fresh tmpfs."""
    readonly: bool = False
    tmpfs_options: str = ""
    is_file: bool = False
    copy_on_write: bool = False
    """The source is a directory that stays as it is: writes go to an upper of the container's."""


class Process(NamedTuple):
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
    fake_ownership: bool = False
    """chown(2) and its kin do nothing and succeed: for package managers under a single-id map."""


class ContainerSpec(NamedTuple):
    """One container: its names, root file system, mounts and first process."""

    id: str
    hostname: str
    process: Process
    rootfs: Rootfs
    mounts: tuple[Mount, ...] = ()
    domainname: str = ""
    hosts: str = ""
    resolv_conf: str = ""
    shm_size: int = DEFAULT_SHM_SIZE
    sysctls: tuple[tuple[str, str], ...] = ()
    cgroups: tuple[str, ...] = ()
    """Directories of cgroups(7); the service moves the process there before it sends the rest."""

    def to_wire(self) -> tuple[tuple[Any, ...], list[int]]:
        """Plain values and the descriptors that must travel beside them, in order."""
        fds = [each.source_fd for each in self.mounts if each.source_fd is not None]
        host = self.rootfs.host
        plain = (
            self.id,
            self.hostname,
            tuple(self.process),
            tuple(self.rootfs._replace(host=None)),
            None if host is None else tuple(host),
            tuple(tuple(each) for each in self.mounts),
            *self[5:],
        )
        return plain, fds

    @classmethod
    def from_wire(cls, plain: tuple[Any, ...], fds: list[int]) -> ContainerSpec:
        """The other side of `to_wire`; each mount takes the descriptor that arrived for it."""
        id_, hostname, process, root, host, mounts, *rest = plain
        rootfs = Rootfs(*root)._replace(host=None if host is None else HostRoot(*host))
        arrived = iter(fds)
        taken = tuple(
            Mount(target, None if fd is None else next(arrived), *others)
            for target, fd, *others in mounts
        )
        return cls(id_, hostname, Process(*process), rootfs, taken, *rest)
