"""Something that goes along with every test's process. PYTEST_DONT_REWRITE

A companion is registered before the zygote is forked. What `child_ends` returns is pickled and
given to `child_told` in pytest's own process.
"""

from __future__ import annotations

from typing import Any


class Companion:
    """Does nothing; a subclass overrides what it needs."""

    def before_fork(self, kept: frozenset[int]) -> None:
        """In pytest's process, before each zygote; `kept`: descriptors that fixtures opened."""

    def in_zygote(self) -> None:
        """In the zygote, which no test runs in, after the fork: done once for many tests."""

    def child_begins(self) -> None:
        """In a test's process, inside its sandbox, before its first test."""

    def child_ends(self) -> Any:
        """There, after its last test; never after a crash."""

    def child_told(self, told: Any) -> None:
        """In pytest's process: what `child_ends` returned."""
