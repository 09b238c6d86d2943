"""What a benchmark run yields, as plain data that turns into JSON.

Times are in seconds throughout; other units are named in `Row.unit`. A scenario's goals are judged
from its own rows only, and a goal whose subject was absent is neither met nor missed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

OURS = "pytest-sandbox"
"""The name under which this project's own measurements appear in every scenario."""

TORN_DOWN = ", with tear-down"
"""Ends the name of a row that holds the same runs up to their end, where the goal is about less."""

Unit = Literal["s", "MiB", "count", "per s"]


@dataclass(frozen=True)
class Row:
    """Every sample that one subject gave in one scenario."""

    subject: str
    samples: Sequence[float]
    unit: Unit = "s"
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p90(self) -> float:
        """The sample below which nine tenths lie (the largest one of a handful)."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))]

    def to_json(self) -> dict[str, object]:
        return {
            "subject": self.subject,
            "unit": self.unit,
            "note": self.note,
            "runs": len(self.samples),
            "median": self.median,
            "min": min(self.samples),
            "p90": self.p90,
            "samples": list(self.samples),
        }


@dataclass(frozen=True)
class Goal:
    """A promise, the figure measured for it, and the limit; `met` is None if unmeasured."""

    text: str
    value: float | None
    limit: float
    at_most: bool
    """True: `value` must not exceed `limit`; False: it must reach it."""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def to_json(self) -> dict[str, object]:
        return {
            "text": self.text,
            "value": self.value,
            "limit": self.limit,
            "bound": "at most" if self.at_most else "at least",
            "met": self.met,
        }


@dataclass
class Result:
    """One scenario's outcome. `absent` says for each missing peer why it is missing."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def median(self, subject: str) -> float | None:
        return next((row.median for row in self.rows if row.subject == subject), None)

    def ratio(self, dividend: str, divisor: str) -> float | None:
        """How many times larger `dividend`'s median is; None if either was not measured."""
        upper, lower = self.median(dividend), self.median(divisor)
        return None if upper is None or lower is None else upper / lower

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
            "absent": self.absent,
            "goals": [goal.to_json() for goal in self.goals],
        }
