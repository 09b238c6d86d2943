"""Deleting trees of any shape in the background.

What is discarded is first renamed into `trash/`, so it is gone for everybody at once and a crash
leaves only work to do. The deletion itself is flat: each directory found in a tree is moved up into
`trash/` and waits there for its turn, so neither depth nor a descriptor per level can stop it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

_log = logging.getLogger("sandboxd.store.trash")
_PATIENCE: Final = 5.0
"""Seconds that a deletion waits for somebody who is making something."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Worker:
    """The thread that deletes, one discarded tree after the other."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._deadline = math.inf
        self._makers = 0
        self._quiet = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="trash", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Nothing new is deleted meanwhile, for some seconds at least: it would take processor and
        disk from whoever waits for what is made here."""
        with self._quiet:
            self._makers += 1
        try:
            yield
        finally:
            with self._quiet:
                self._makers -= 1
                self._quiet.notify()

    @property
    def is_over(self) -> bool:
        """Whether deletions should stop where they are."""
        return time.monotonic() > self._deadline

    def close(self, patience: float) -> None:
        """End the thread when all is deleted, or after `patience` seconds; the rest waits."""
        self._deadline = time.monotonic() + patience
        self._jobs.put(None)
        with self._quiet:
            self._quiet.notify()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._quiet:
                self._quiet.wait_for(self._may_go_on, _PATIENCE)
            try:
                job()
            except OSError as error:
                # Left where it is; the next start of the service tries again.
                _log.warning("cannot delete what was discarded: %s", error)

    def _may_go_on(self) -> bool:
        return not self._makers or self._deadline != math.inf


class Trash:
    """A directory of one file system; what is in it gets deleted, the directory itself stays."""

    def __init__(self, directory: Path, worker: Worker) -> None:
        self.directory = directory
        self._worker = worker
        self._fd = os.open(directory, _DIRECTORY)
        self._serial = itertools.count()
        for name in os.listdir(self._fd):
            worker.put(partial(self._delete, name))

    def discard(self, path: Path) -> None:
        """Take `path` (file, link or tree) away; a path that is not there is no error."""
        name = self._fresh_name()
        try:
            parent = os.open(path.parent, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            self._move(parent, path.name, name)
        except FileNotFoundError:
            return
        finally:
            os.close(parent)
        self._worker.put(partial(self._delete, name))

    def close(self) -> None:
        """Only after the worker was closed."""
        os.close(self._fd)

    def _move(self, parent: int, name: str, new_name: str) -> None:
        """Rename into the trash; a directory must be writable then, for its `..` is rewritten."""
        try:
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=self._fd)
        except PermissionError:
            _permit(parent, name)
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=self._fd)

    def _fresh_name(self) -> str:
        return f"{os.getpid()}-{next(self._serial)}-{os.urandom(4).hex()}"

    def _delete(self, name: str) -> None:
        waiting = [name]
        while waiting and not self._worker.is_over:
            # Another process of the same state may delete what it has found there.
            with contextlib.suppress(FileNotFoundError):
                waiting += self._delete_one(waiting.pop())

    def _delete_one(self, name: str) -> list[str]:
        """Delete a file or a directory's files; returns the directories moved up for later."""
        status = os.lstat(f"/proc/self/fd/{self._fd}/{name}")
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self._fd)
            return []
        fd = self._open_writable(name)
        try:
            moved = []
            for child in os.listdir(fd):
                if self._worker.is_over:
                    return []
                moved += self._remove_child(fd, child)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=self._fd)
        return moved

    def _open_writable(self, name: str) -> int:
        """Open a directory of the trash whatever its permission bits; never a link's target."""
        _permit(self._fd, name)
        return os.open(name, _DIRECTORY, dir_fd=self._fd)

    def _remove_child(self, parent: int, name: str) -> list[str]:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            moved = self._fresh_name()
            self._move(parent, name, moved)
            return [moved]
        return []


def _permit(parent: int, name: str) -> None:
    """chmod 0700 of a directory by descriptor: chmod(2) by name would follow a symbolic link."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with contextlib.suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)
