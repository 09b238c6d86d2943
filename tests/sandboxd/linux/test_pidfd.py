"""Processes by descriptor."""

from __future__ import annotations

import os
import select
import signal

import pytest

from sandboxd.linux import pidfd


def _sleeper() -> tuple[int, int]:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid, pidfd.pidfd_open(pid)


def test_a_signal_ends_it_and_the_descriptor_turns_readable() -> None:
    pid, fd = _sleeper()
    assert pidfd.pid_of(fd) == pid
    assert select.select([fd], [], [], 0)[0] == []
    pidfd.pidfd_send_signal(fd, signal.SIGKILL)
    assert select.select([fd], [], [], 10)[0] == [fd]
    os.waitpid(pid, 0)
    assert pidfd.pid_of(fd) == -1
    with pytest.raises(ProcessLookupError):
        pidfd.pidfd_send_signal(fd, signal.SIGKILL)
    os.close(fd)


def test_a_plain_descriptor_is_no_process() -> None:
    with open("/dev/null") as null, pytest.raises(OSError, match="not a pidfd"):
        pidfd.pid_of(null.fileno())
