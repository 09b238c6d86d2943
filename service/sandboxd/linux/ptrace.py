"""Holding a process at the moment at which it has made another one: ptrace(2)."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from sandboxd.linux.syscalls import checked, libc

_SEIZE: Final = 0x4206
_CONTINUE: Final = 7
_DETACH: Final = 17
_GETEVENTMSG: Final = 0x4201
_OPTIONS: Final = 0x02 | 0x04 | 0x08 | 0x100000
"""PTRACE_O_TRACEFORK, TRACEVFORK, TRACECLONE and EXITKILL (Linux 3.8)."""
_FORK_EVENTS: Final = frozenset({1, 2, 3})
"""PTRACE_EVENT_FORK, VFORK and CLONE: clone3(2) counts as one of them by its exit signal."""
_WALL: Final = 0x40000000

_ptrace = libc["ptrace"]
_ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


def seize(pid: int) -> None:
    """PTRACE_SEIZE, Linux 3.4: from now on `pid` stops before it returns from a fork or clone.

    It dies with this process. Raises PermissionError where nobody may trace: proc_sys_kernel(5),
    yama/ptrace_scope.
    """
    checked("ptrace", _ptrace(_SEIZE, pid, 0, _OPTIONS), pid)


def wait_for_fork(pid: int) -> int | None:
    """Wait until a seized process has forked, where it stays stopped; the pid of its child.

    None when it ended without; its wait status is taken. The child is traced and stopped, too:
    `release` lets it go on.
    """
    while True:
        _, status = os.waitpid(pid, _WALL)
        if not os.WIFSTOPPED(status):
            return None
        if status >> 16 in _FORK_EVENTS:
            break
        _ptrace(_CONTINUE, pid, 0, 0)
    message = ctypes.c_ulong()
    checked("ptrace", _ptrace(_GETEVENTMSG, pid, 0, ctypes.addressof(message)), pid)
    return message.value


def release(pid: int) -> None:
    """Detach from the child that `wait_for_fork` found, once it has stopped for the first time."""
    os.waitpid(pid, _WALL)
    checked("ptrace", _ptrace(_DETACH, pid, 0, 0), pid)
