"""Times and durations in the words of Docker's API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NEVER: Final = "0001-01-01T00:00:00Z"
"""Go's zero time."""

_UNITS: Final = (
    (2 * 365 * 24 * 3600, 365 * 24 * 3600, "years"),
    (2 * 30 * 24 * 3600, 30 * 24 * 3600, "months"),
    (2 * 7 * 24 * 3600, 7 * 24 * 3600, "weeks"),
    (48 * 3600, 24 * 3600, "days"),
)
"""From so many seconds on, in units of so many, called so."""


def rfc3339(time_ns: int) -> str:
    """`2026-11-24T16:49:55.734208747Z`: nanoseconds since 1970, nine decimals; zero is `NEVER`."""
    if not time_ns:
        return NEVER
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def human_duration(seconds: float) -> str:
    """`Less than a second`, `3 seconds`, `About a minute`, `2 hours`: Docker's own words."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    for least, unit, name in _UNITS:
        if whole >= least:
            return f"{whole // unit} {name}"
    return f"{hours} hours"
