"""What processes have used: CPU seconds and memory, from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from benchmarks.leftovers import family

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants, the ended ones included."""
    return sum(_ticks(each) for each in family(pid)) / _TICKS


def peak_bytes(pids: Iterable[int]) -> int:
    """The sum of the largest memory that each of the processes ever had."""
    return sum(_peak(pid) for pid in pids)


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field) for field in fields[11:15])  # utime stime cutime cstime


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
