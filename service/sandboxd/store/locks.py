"""Locks between processes, by name: whoever publishes or deletes a digest holds its lock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Locks:
    """A fixed set of 256 lock files, so that names leave nothing behind.

    Names that share a file exclude each other needlessly, never wrongly. A thread may take a lock
    that it holds. Several names are taken in one order, so two callers cannot wait for each other;
    whoever needs several must ask for them in one call.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, *names: str) -> Iterator[None]:
        """Wait for the locks of all `names` and hold them for the block."""
        with ExitStack() as held:
            for path in self._files(names):
                held.enter_context(FileLock(path, is_singleton=True, poll_interval=0.01))
            yield

    @contextmanager
    def attempt(self, *names: str) -> Iterator[bool]:
        """Whether all locks were free; they are held for the block if so."""
        with ExitStack() as held:
            try:
                for path in self._files(names):
                    lock = FileLock(path, is_singleton=True, poll_interval=0.01)
                    held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                held.close()
                yield False
                return
            yield True

    def _files(self, names: tuple[str, ...]) -> list[Path]:
        stripes = {hashlib.sha256(name.encode()).hexdigest()[:2] for name in names}
        return [self._directory / f"{stripe}.lock" for stripe in sorted(stripes)]
