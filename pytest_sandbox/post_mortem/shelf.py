"""The directory of kept states: each published whole, the oldest removed first.

`$SANDBOX_ROOT/post-mortem/STAMP-DIGITS` is a state; `.new-…` one that is being written, for as long
as its writer holds a lock on it. Any number of pytest processes share the shelf.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from pytest_sandbox.post_mortem import state as states
from pytest_sandbox.post_mortem.settings import Bounds
from pytest_sandbox.post_mortem.state import State
from sandboxd.paths import private_directory, state_root

_NEW: Final = ".new-"
_OLD: Final = ".old-"
_LOCK: Final = ".lock"


class Kept(NamedTuple):
    """A state on the shelf."""

    path: Path
    state: State

    @property
    def id(self) -> str:
        return self.path.name


class Shelf:
    """The post mortems of one user."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or state_root()) / "post-mortem"

    def kept(self) -> list[Kept]:
        """All states, the newest first."""
        try:
            names = [name for name in os.listdir(self.root) if not name.startswith(".")]
        except FileNotFoundError:
            return []
        found = ((self.root / name, states.load(self.root / name)) for name in names)
        whole = [Kept(path, state) for path, state in found if state is not None]
        return sorted(whole, key=lambda kept: kept.state.when, reverse=True)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new directory to fill and to give to `publish`; what is not published goes again."""
        private_directory(self.root)
        path = self.root / f"{_NEW}{uuid4().hex[:12]}"
        path.mkdir(mode=0o700)
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            if path.exists():
                remove_tree(path)
            os.close(held)

    def publish(self, staged: Path, state: State, bounds: Bounds) -> Kept:
        """Write the state's own file, make all of it durable, give it its name, keep the bounds.

        Raises OSError.
        """
        (staged / states.FILE).write_text(state.to_json())
        _sync(staged)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(state.when))
        final = self.root / f"{stamp}-{uuid4().hex[:8]}"
        os.rename(staged, final)
        _sync_entry(self.root)
        self.trim(bounds)
        return Kept(final, state)

    def trim(self, bounds: Bounds) -> None:
        """Remove the oldest states beyond the bounds, and what dead writers have left."""
        with self._lock():
            total = 0
            for number, kept in enumerate(self.kept()):
                total += kept.state.size
                if number >= bounds.count or total > bounds.size:
                    self._remove(kept.path)
            for name in os.listdir(self.root):
                if name.startswith((_NEW, _OLD)) and _is_abandoned(self.root / name):
                    remove_tree(self.root / name)

    def remove(self, kept: Kept) -> None:
        with self._lock():
            self._remove(kept.path)

    def _remove(self, path: Path) -> None:
        """Out of sight at once, then file by file."""
        aside = self.root / f"{_OLD}{uuid4().hex[:12]}"
        with suppress(FileNotFoundError):
            os.rename(path, aside)
            remove_tree(aside)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.root / _LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def remove_tree(path: Path) -> None:
    """Also where directories forbid it: they are ours."""
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
    for directory, names, _ in os.walk(path):
        for name in names:
            with suppress(OSError):
                os.chmod(os.path.join(directory, name), stat.S_IRWXU, follow_symlinks=False)
    shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


_FILES_MAX: Final = 64
"""From here on, one sync(2) is cheaper than an fsync(2) for each file."""


def _sync(tree: Path) -> None:
    """Everything below `tree` is on the disk afterwards."""
    files = [os.path.join(where, name) for where, _, names in os.walk(tree) for name in names]
    if len(files) > _FILES_MAX:
        os.sync()
        return
    for path in [*files, *(where for where, _, _ in os.walk(tree, topdown=False))]:
        if os.path.isdir(path) or (os.path.isfile(path) and not os.path.islink(path)):
            with suppress(PermissionError):
                _sync_entry(path)


def _sync_entry(path: str | Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
