"""Resource limits by cgroups, where this process may make some; refused where it may not."""

from __future__ import annotations

from sandboxd.engine.settings import Limits
from sandboxd.errors import CannotEnforce


class Enclosure:
    """The cgroups of one container; none for most."""

    directories: tuple[str, ...] = ()

    def close(self) -> bool:
        """Remove them; whether a process was killed for want of memory."""
        return False


class Limiter:
    def check(self, limits: Limits) -> None:
        """Raises CannotEnforce for a limit that this machine gives us no cgroup for."""
        if limits:
            raise CannotEnforce("resource limits", "no cgroup of ours", "sandboxctl doctor")

    def enclose(self, id: str, limits: Limits) -> Enclosure:
        return Enclosure()

    def info(self) -> dict[str, bool]:
        """What GET /info says about limits."""
        return dict.fromkeys(
            ("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota", "CPUShares"), False
        )
