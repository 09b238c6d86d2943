"""Pins: what this process is using right now, counted, so that collection leaves it alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Pins:
    """Counted names. `frozen` shows them while no pin can come or go."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def add(self, digest: str) -> None:
        with self._mutex:
            self._counts[digest] += 1

    def remove(self, digest: str) -> None:
        """Give back one `add`; the name is free when all were given back."""
        with self._mutex:
            self._counts[digest] -= 1
            if self._counts[digest] <= 0:
                del self._counts[digest]

    @contextmanager
    def held(self, *digests: str) -> Iterator[None]:
        for digest in digests:
            self.add(digest)
        try:
            yield
        finally:
            for digest in digests:
                self.remove(digest)

    @contextmanager
    def frozen(self) -> Iterator[frozenset[str]]:
        """All pinned names. Whoever wants a new pin waits until the block ends."""
        with self._mutex:
            yield frozenset(self._counts)
