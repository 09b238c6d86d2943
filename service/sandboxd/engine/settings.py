"""What a container was asked to be: plain typed data that `configuration` makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class MountRequest:
    """One mount point as it was asked for; volumes get their names when the container is made."""

    kind: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str = ""
    """A volume's name (empty: anonymous) or an absolute host path."""
    readonly: bool = False
    copy: bool = True
    """Fill an empty volume from the image."""
    subpath: str = ""
    create_source: bool = False
    """Make a missing bind source, as `-v` does."""
    driver: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    tmpfs_options: str = ""
    copy_on_write: bool = False
    """A bind whose source stays as it is, whatever the container writes."""
    mode: str = ""
    """The options as they were written, for inspect."""

    @property
    def anonymous(self) -> bool:
        """Whether a volume without a name is to be made."""
        return self.kind == "volume" and not self.source


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits that only cgroups can enforce; zero is none."""

    memory: int = 0
    """Bytes."""
    memory_swap: int = 0
    """Bytes of memory and swap together; -1 is no limit on swap."""
    pids: int = 0
    cpu_quota: int = 0
    """Microseconds of one CPU in each `cpu_period`."""
    cpu_period: int = 100_000
    cpu_shares: int = 0
    """The weight in Docker's scale: 1024 is usual."""

    def __bool__(self) -> bool:
        return bool(self.memory or self.pids or self.cpu_quota or self.cpu_shares)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The enforced part of HostConfig."""

    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    auto_remove: bool = False
    readonly_rootfs: bool = False
    capabilities: tuple[str, ...] | None = None
    """Names without CAP_; None is the default profile."""
    seccomp: bool = True
    no_new_privs: bool = True
    group_add: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    """Pairs of name and address."""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    shm_size: int = 64 << 20
    sysctls: tuple[tuple[str, str], ...] = ()
    network: str = ""
    """Whose network namespace it joins: `container:ID`, `pid:PID`, or empty for a fresh one."""
    rlimits: tuple[tuple[str, int, int], ...] = ()
    oom_score_adj: int | None = None
    init: bool = False
    console_size: tuple[int, int] = (0, 0)
    """Rows and columns."""
    log_limit: int = 0
    """Bytes; zero is the default. -1: no log at all."""
    limits: Limits = Limits()
    upper: str = ""
    """Where writes to its root go: `disk`, `memory`, or wherever it is best."""
    show: tuple[str, ...] = ()
    """Host paths that the image `host` shows read-only."""


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to ask a container whether it is well; times in seconds."""

    command: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """A create body merged with its image's configuration."""

    image: str
    """The reference as it was given."""
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    hostname: str = ""
    """Empty: the first 12 characters of the id."""
    domainname: str = ""
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    """Mount points of anonymous volumes, the image's included."""
    healthcheck: Healthcheck | None = None
    host: HostSettings = HostSettings()

    @property
    def args(self) -> tuple[str, ...]:
        return self.entrypoint + self.command
