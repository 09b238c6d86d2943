"""Processes by descriptor: a pidfd never names a recycled pid."""

from __future__ import annotations

import os

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import syscall


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3: a descriptor that turns readable when the process ends."""
    return syscall("pidfd_open", pid, syscalls.SYS_PIDFD_OPEN, pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2), Linux 5.1. Raises ProcessLookupError when the process is gone."""
    syscall("pidfd_send_signal", pidfd, syscalls.SYS_PIDFD_SEND_SIGNAL, pidfd, signal, None, 0)


def pid_of(pidfd: int) -> int:
    """The pid as this process's /proc shows it (proc_pid_fdinfo(5)); -1 once it was reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        for line in info:
            if line.startswith("Pid:"):
                return int(line[4:])
    raise OSError(f"/proc/self/fdinfo/{pidfd}: not a pidfd")


def reap(pidfd: int) -> int:
    """waitid(2) with P_PIDFD, Linux 5.4: collect a child; its exit code, or minus a signal."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
