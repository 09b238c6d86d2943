"""How much of failed tests is kept: two ini keys. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pytest

COUNT: Final = "sandbox_keep_count"
SIZE: Final = "sandbox_keep_size"
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class Bounds:
    """How much is kept: this many states, of this many bytes altogether."""

    count: int
    size: int


def add_options(parser: pytest.Parser) -> None:
    parser.addini(
        COUNT, "Keep the state of so many failed tests, the newest; 0 for none", default="20"
    )
    parser.addini(SIZE, "Bytes that the kept states may take altogether: 64m, 1g", default="256m")


def bounds(config: pytest.Config) -> Bounds | None:
    """None where nothing is kept. Raises UsageError that names the source of a bad value."""
    count, size = str(config.getini(COUNT)), str(config.getini(SIZE))
    if not count.isdecimal():
        raise pytest.UsageError(f"{COUNT}={count}: it is no whole number from 0 up")
    amount = re.fullmatch(r"(\d+)([kmg]?)b?", size.strip().lower())
    if amount is None:
        raise pytest.UsageError(f"{SIZE}={size}: it is no number of bytes, such as 64m")
    if int(count) == 0:
        return None
    return Bounds(int(count), int(amount[1]) * _UNITS[amount[2]])
