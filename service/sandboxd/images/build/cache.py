"""The build cache: the key of a step to the layer that it made.

A step's key is the digest of everything that can change what it does, the key of the step before it
first of all, so a key stands for the whole way from the base image's id. An instruction that
touches the config alone has a key too (CVE-2024-24557), and a row that says when it was made, so
that a cached build gives the very same image.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandboxd.store import Store

RULES: Final = 1
"""Part of every key: to be raised when the same step would make something else."""

_FRESH: Final = 3600.0
"""Seconds for which a row counts as just used: most hits need no write."""
_KNOWN_MAX: Final = 10_000


def step_key(*ingredients: Any) -> str:
    """The digest of ingredients that JSON can tell apart."""
    canonical = json.dumps([RULES, *ingredients], sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class CachedStep:
    """`layer` is a diffID, empty for a step that changed no file; `created` is RFC 3339."""

    layer: str
    created: str


class StepCache:
    """Rows of the store's table `build_cache`; the collector keeps their layers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._known: dict[str, tuple[CachedStep, float]] = {}
        """Rows that were read or written, with the time of their last use."""

    def find(self, key: str, pin: Callable[[str], None]) -> CachedStep | None:
        """A step that was made, its layer pinned by `pin`; None where the layer is gone."""
        found = self._row(key)
        if found is None:
            return None
        step, used = found
        if step.layer:
            pin(step.layer)
            if not self._store.layers.has(step.layer):
                self._known.pop(key, None)
                self._store.database.build_cache.delete(key)
                return None
        if time.time() - used > _FRESH:
            self.record(key, step)
        return step

    def record(self, key: str, step: CachedStep) -> None:
        now = time.time()
        row = {"layer": step.layer, "created": step.created, "used": now}
        # In a transaction of its own kind: outside of one, the last one's sync would be repeated.
        with self._store.database.transaction():
            self._store.database.build_cache.put(key, row)
        self._remember(key, step, now)

    def _row(self, key: str) -> tuple[CachedStep, float] | None:
        if key not in self._known:
            row = self._store.database.build_cache.get(key)
            if row is None:
                return None
            self._remember(key, CachedStep(row["layer"], row["created"]), row["used"])
        return self._known[key]

    def _remember(self, key: str, step: CachedStep, used: float) -> None:
        self._known[key] = step, used
        while len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]

    @asynccontextmanager
    async def one_at_a_time(self, key: str) -> AsyncIterator[None]:
        """Of two builds that need the same step, the second waits and finds it."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1

    def prune(self, unused_for: float = 0.0) -> Sequence[str]:
        """Forget the steps that nobody used for so many seconds; their keys."""
        rows = self._store.database.build_cache
        moment = time.time() - unused_for
        gone = [key for key, row in rows.all().items() if row["used"] <= moment]
        with self._store.database.releasing():
            for key in gone:
                rows.delete(key)
                self._known.pop(key, None)
        return gone


class CacheDirectories:
    """The directories of `--mount=type=cache`, by id, below the state root."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root / "build-cache"
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_use: dict[Path, int] = {}

    @asynccontextmanager
    async def opened(self, id: str, sharing: str) -> AsyncIterator[Path]:
        """A directory of that id, made with mode 0700 where it is new.

        `shared`: for all at once. `locked`: one step after the other. `private`: another directory
        for a step that would have to share.
        """
        self._root.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(id.encode()).hexdigest()
        lock = self._locks.setdefault(id, asyncio.Lock()) if sharing == "locked" else None
        if lock is not None:
            await lock.acquire()
        path = self._root / name
        number = 0
        while sharing == "private" and path in self._in_use:
            number += 1
            path = self._root / f"{name}-{number}"
        self._in_use[path] = self._in_use.get(path, 0) + 1
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            yield path
        finally:
            self._in_use[path] -= 1
            if not self._in_use[path]:
                del self._in_use[path]
            if lock is not None:
                lock.release()

    def paths(self) -> Sequence[Path]:
        """The directories that no step uses."""
        if not self._root.is_dir():
            return []
        return [path for path in self._root.iterdir() if path not in self._in_use]

    def prune(self) -> Sequence[Path]:
        """Take away the directories that no step uses; their paths."""
        gone = self.paths()
        for path in gone:
            self._store.discard(path)
        return gone
