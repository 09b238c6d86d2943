"""Health checks: a command run in the container now and then, and what it said."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sandboxd.engine.clock import rfc3339
from sandboxd.engine.settings import Healthcheck

_KEPT: Final = 5
"""Results in the log that inspect shows."""


@dataclass(slots=True)
class Health:
    """What `State.Health` of inspect tells; status is starting, healthy or unhealthy."""

    status: str = "starting"
    streak: int = 0
    """Failures in a row."""
    log: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def reset(self) -> None:
        """A new run begins; the log of the last one stays."""
        self.status, self.streak = "starting", 0

    def record(
        self, check: Healthcheck, *, begun: int, ended: int, code: int, output: str, age: float
    ) -> bool:
        """Note one result; whether the status has changed.

        `begun` and `ended` are nanoseconds since 1970, `age` is the run's in seconds: failures in
        the start period do not count.
        """
        times = {"Start": rfc3339(begun), "End": rfc3339(ended)}
        self.log.append({**times, "ExitCode": code, "Output": output})
        before = self.status
        if code == 0:
            self.status, self.streak = "healthy", 0
        elif self.status != "starting" or age >= check.start_period:
            self.streak += 1
            if self.streak >= check.retries:
                self.status = "unhealthy"
        return self.status != before

    def about(self) -> dict[str, Any]:
        return {"Status": self.status, "FailingStreak": self.streak, "Log": list(self.log)}
