"""Resource limits by cgroups, where this service may make some; refused where it may not."""

from __future__ import annotations

import logging
from typing import Final

from sandboxd.engine.settings import Limits
from sandboxd.errors import CannotEnforce
from sandboxd.linux.cgroup import Group, Subtree

log = logging.getLogger("sandboxd.engine")

_NEEDS: Final = "this service may not make cgroups with the controller"
_MEND: Final = (
    "start it with `systemd-run --user --scope -p Delegate=yes sandboxctl service start`; "
    "sandboxctl doctor says more"
)
_INFO: Final = {
    "MemoryLimit": "memory",
    "SwapLimit": "memory",
    "PidsLimit": "pids",
    "CpuCfsPeriod": "cpu",
    "CpuCfsQuota": "cpu",
    "CPUShares": "cpu",
}


class Enclosure:
    """The cgroups of one container while it runs; none for most."""

    def __init__(self, limiter: Limiter, group: Group | None) -> None:
        self._limiter = limiter
        self._group = group
        self.directories = group.directories if group else ()

    def close(self) -> bool:
        """Remove them; whether a process in them was killed for want of memory."""
        if self._group is None:
            return False
        killed = self._group.oom_kills() > 0
        self._limiter.drop(self._group)
        return killed


class Limiter:
    """Makes cgroups below `subtree`; without one every limit is refused."""

    def __init__(self, subtree: Subtree | None) -> None:
        self._subtree = subtree
        self._unwanted: list[Group] = []
        self._none = Enclosure(self, None)
        if subtree:
            # What an earlier service left when it was killed; its processes died with it.
            subtree.sweep()

    def check(self, limits: Limits) -> None:
        """Raises CannotEnforce for a limit that this machine gives us no cgroup for."""
        if not limits:
            return
        asked = {
            "memory": limits.memory,
            "pids": limits.pids,
            "cpu": limits.cpu_quota or limits.cpu_shares,
        }
        needed = tuple(name for name, value in asked.items() if value)
        missing = self._subtree.missing(limits) if self._subtree else needed
        if missing:
            names = " and ".join(missing)
            raise CannotEnforce(f"the limit on {names}", f"{_NEEDS} {names}", _MEND)

    def enclose(self, id: str, limits: Limits) -> Enclosure:
        """The container's cgroups with their limits. Raises OSError, and leaves nothing then."""
        if not limits or self._subtree is None:
            return self._none
        self._drop_unwanted()
        return Enclosure(self, self._subtree.create(id, limits))

    def drop(self, group: Group) -> None:
        """Remove a group; one that the kernel still holds on to goes later."""
        self._unwanted.append(group)
        self._drop_unwanted()

    def info(self) -> dict[str, bool]:
        """What GET /info says about limits."""
        have = self._subtree.controllers if self._subtree else {}
        return {name: controller in have for name, controller in _INFO.items()}

    def close(self) -> None:
        """Remove the subtree itself."""
        self._drop_unwanted()
        if self._subtree:
            try:
                self._subtree.remove()
            except OSError as error:
                log.warning("cgroups stay behind: %s", error)

    def _drop_unwanted(self) -> None:
        groups, self._unwanted = self._unwanted, []
        for group in groups:
            try:
                group.remove()
            except OSError:
                self._unwanted.append(group)
