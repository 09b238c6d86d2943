"""What we measure ourselves against; one module for each, used only where it is installed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable


class Absent(Exception):
    """A peer that cannot run on this machine; the text says why and goes into the report."""


def found(program: str) -> str:
    """The path of `program`, or Absent."""
    path = shutil.which(program)
    if path is None:
        raise Absent(f"{program} is not installed")
    return path


def command(argv: list[str]) -> Callable[[], float]:
    """Time a command from posix_spawn to waitpid, the leanest client a command line can have.

    Output goes to /dev/null; a status other than 0 ends the benchmark.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    redirect = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]

    def run() -> float:
        began = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=redirect)
        _, status = os.waitpid(pid, 0)
        elapsed = time.perf_counter() - began
        if status != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}")
        return elapsed

    return run
