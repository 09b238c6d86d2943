"""prctl and close_range on a forked child of the test's own."""

from __future__ import annotations

import os
import signal

import pytest

from sandboxd.linux import pidfd, process

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


def _status(name: str) -> str:
    with open("/proc/self/status") as lines:
        return next(line for line in lines if line.startswith(f"{name}:")).split(":", 1)[1].strip()


def test_the_name_is_cut_at_fifteen_bytes() -> None:
    process.set_name("a-name-that-is-too-long")
    assert _status("Name") == "a-name-that-is-"


def test_no_new_privs_stays() -> None:
    process.set_no_new_privs()
    assert _status("NoNewPrivs") == "1"


def test_the_parents_death_kills() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            process.set_parent_death_signal(signal.SIGKILL)
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(writing)
    assert os.read(reading, 1) == b"", "the grandchild still holds the pipe"


def test_close_from_closes_a_range_and_no_more() -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
    process.close_from(fds[1], fds[2])
    assert [_is_open(fd) for fd in fds] == [True, False, False, True]


def test_close_from_can_leave_it_to_exec() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    process.close_from(fd, fd, process.CLOSE_RANGE_CLOEXEC)
    assert _is_open(fd)
    assert not os.get_inheritable(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_pid_of_another_namespace_is_refused() -> None:
    with pytest.raises(OSError, match="pidfd_open"):
        pidfd.pidfd_open(0)
