"""The service's process seen from outside: whether it died, and its exit code.

The service is nobody's child in a test run, so waitpid(2) cannot tell. A pidfd can: it polls
readable at the end of its process, and ioctl PIDFD_GET_INFO (Linux 6.15) keeps the exit status.
Until the process is reaped, and on older kernels as long as that takes, /proc has it.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct

_INFO = struct.Struct("=QQ12i")
"""struct pidfd_info, first published size: mask, cgroup id, ten ids…, exit_code last."""
_PIDFD_GET_INFO = 0xC000FF0B | _INFO.size << 16
_INFO_EXIT = 1 << 3


class ServiceProcess:
    """Holds on to the process `pid`, whatever its number means later. OSError when it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Whether the process has exited: pidfd_open(2)."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def exit_code(self) -> int | None:
        """Exit code, or minus the signal, once it has ended; None where the kernel cannot tell."""
        for source in (self._kept_status, self._zombie_status, self._kept_status):
            if (status := source()) is not None:
                return os.waitstatus_to_exitcode(status)
        return None

    def close(self) -> None:
        os.close(self._fd)

    def _kept_status(self) -> int | None:
        """The wait status that the pidfd keeps of a reaped process: linux/pidfd.h."""
        info = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
        try:
            fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        mask, *_, status = _INFO.unpack(info)
        return status if mask & _INFO_EXIT else None

    def _zombie_status(self) -> int | None:
        """The last field of /proc/PID/stat, meaningful in state Z: proc_pid_stat(5)."""
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return None
        return int(fields[-1]) if fields[0] == "Z" else None


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; empty for what is no signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
