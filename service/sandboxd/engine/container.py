"""One container: what it was asked to be, what it is now, and the live parts while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.attachments import Outlet
from sandboxd.engine.health import Health
from sandboxd.engine.logs import LIMIT, Log
from sandboxd.engine.program import Program
from sandboxd.engine.settings import MountRequest, Settings
from sandboxd.engine.states import State, Step, after
from sandboxd.engine.stdin import Stdin
from sandboxd.errors import BadRequest

if TYPE_CHECKING:
    from sandboxd.engine.leases import Lease
    from sandboxd.engine.limits import Enclosure

_CONDITIONS: Final = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount request of which the volume has its name."""

    request: MountRequest
    volume: str = ""
    anonymous: bool = False
    """The volume was made for this container and may go with it."""


@dataclass(slots=True)
class Facts:
    """What `State` of inspect tells; all that a restart of the service must not forget.

    Times are nanoseconds since 1970, zero for never.
    """

    state: State = State.CREATED
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: int = 0
    finished: int = 0


@dataclass(eq=False)
class Container:
    """Its state changes by `enter` alone."""

    id: str
    name: str
    settings: Settings
    body: Mapping[str, Any]
    """The create body as it came."""
    image: str
    """The image's id."""
    image_config: Mapping[str, Any]
    mounts: tuple[MountPoint, ...]
    created: int
    home: Path
    """Where all containers have their directories, or at least their logs."""
    memory: Path | None = None
    """Where it has its directory instead, in memory."""
    throwaway: bool = False
    """What it writes is gone when it ends: its upper directory is the warm slot's own tmpfs."""
    ephemeral: bool = False
    """It does not outlive the service and is never written to the database."""
    auto_remove: bool = False
    lease: Lease | None = None
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        settings = self.settings
        limit = settings.host.log_limit or LIMIT
        path = None if self.ephemeral else self.log_path
        self.log = Log(self.home, path, limit=limit)
        self.outlet = Outlet(self.log if limit > 0 else None)
        self.stdin = Stdin() if settings.open_stdin else None
        self.program: Program | None = None
        self.enclosure: Enclosure | None = None
        self.execs: set[str] = set()
        self.lock = asyncio.Lock()
        self.health = Health() if settings.healthcheck else None
        self.removal_begun = False
        self.restarting = False
        self._waiters: list[tuple[str, asyncio.Future[int]]] = []

    @property
    def state(self) -> State:
        return self.facts.state

    @property
    def running(self) -> bool:
        return self.facts.state is State.RUNNING

    @property
    def hostname(self) -> str:
        return self.settings.hostname or self.id[:12]

    @property
    def directory(self) -> Path:
        """Its upper directory and log, unless it is throwaway."""
        return (self.memory or self.home) / self.id

    @property
    def log_path(self) -> Path:
        return self.directory / "log"

    @property
    def upper(self) -> Path:
        """Where its writes go, if they are kept."""
        return self.directory / "upper"

    @property
    def keeps_writes(self) -> bool:
        """Whether writes to its root are kept for the next start; a read-only one has none."""
        return not (self.throwaway or self.settings.host.readonly_rootfs)

    @property
    def attributes(self) -> dict[str, str]:
        """What events tell about it."""
        return {**self.settings.labels, "image": self.settings.image, "name": self.name}

    def enter(self, step: Step, **facts: Any) -> None:
        """Make a step of the state machine. Raises Conflict where the table has none.

        `facts` are the fields of `Facts` that change with it. The caller writes the result once.
        """
        self.facts.state = after(self.facts.state, step, self.name)
        for name, value in facts.items():
            setattr(self.facts, name, value)

    def wait(self, condition: str) -> asyncio.Future[int]:
        """The exit code, once `condition` holds. Raises BadRequest for one that is none."""
        if condition not in _CONDITIONS:
            raise BadRequest(f'invalid condition: "{condition}"')
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        gone = self.state is State.REMOVED
        if gone or (condition == "not-running" and not self.running):
            outcome.set_result(self.facts.exit_code)
        else:
            self._waiters.append((condition, outcome))
        return outcome

    def settle(self, *conditions: str) -> None:
        """Answer everyone who waits for one of `conditions`."""
        waiters, self._waiters = self._waiters, []
        for condition, outcome in waiters:
            if condition not in conditions:
                self._waiters.append((condition, outcome))
            elif not outcome.done():
                outcome.set_result(self.facts.exit_code)
