"""Huge pages under the zygote's heap: what a fork costs grows with the number of pages.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Final

from sandboxd.linux.syscalls import libc

_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
"""Linux 6.1."""
_HUGE: Final = 2 << 20
_WORTH_IT: Final = 100 << 20
"""Bytes of anonymous memory from which on collapsing it pays, with enough forks to come."""
_MANY: Final = 50


def settle(forks: int) -> None:
    """Collapse this process's anonymous memory into huge pages, where so many forks will come that
    they pay for it. The kernel may not be able to; then nothing is lost."""
    if forks < _MANY or _anonymous() < _WORTH_IT:
        return
    for start, end in _heap():
        first, last = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if first < last:
            where, size = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
            if libc.madvise(where, size, _MADV_HUGEPAGE) == 0:
                libc.madvise(where, size, _MADV_COLLAPSE)


def _anonymous() -> int:
    """Bytes: RssAnon of proc_pid_status(5)."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


def _heap() -> Iterator[tuple[int, int]]:
    """Private, writable, anonymous ranges: proc_pid_maps(5)."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            where, modes, _, _, inode, *name = line.split()
            if modes == "rw-p" and inode == "0" and (not name or name[0] == "[heap]"):
                start, end = where.split("-")
                yield int(start, 16), int(end, 16)
