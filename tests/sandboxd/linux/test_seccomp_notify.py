"""A listener that sees real calls of a child, and lets them go on."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandboxd.linux import process, seccomp, seccomp_notify
from sandboxd.linux.pidfd import pidfd_open
from sandboxd.linux.syscall_numbers import NUMBERS

_CONNECT = NUMBERS[os.uname().machine]["connect"]


def _program() -> bytes:
    program = seccomp.Program()
    program.load(seccomp.NUMBER_OFFSET)
    program.branch(seccomp.EQUAL, _CONNECT, "ask")
    program.ret(seccomp.RET_ALLOW)
    program.mark("ask")
    program.ret(seccomp.RET_USER_NOTIF)
    return program.assemble()


@contextmanager
def _watched(port: int) -> Iterator[tuple[int, int, int]]:
    """(listener, pid, end of a pipe) of a child that connects to the port and says how it went."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        listener = seccomp.PreparedFilter(_program()).install_listened()
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        with socket.socket() as client:
            os.write(writing, b"%d" % client.connect_ex(("127.0.0.1", port)))
        os._exit(0)
    os.close(writing)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    yield fds[0], child, reading
    os.close(fds[0])
    os.close(reading)
    os.waitpid(child, 0)


def test_a_call_is_seen_with_its_memory_and_goes_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        _watched(server.getsockname()[1]) as (listener, child, reading),
    ):
        seen = seccomp_notify.receive(listener)
        fd, address, length = seen.arguments[:3]
        assert (seen.pid, seen.number, length) == (child, _CONNECT, 16)
        assert seccomp_notify.still_waits(listener, seen)
        sockaddr = seccomp_notify.read_memory(seen.pid, address, length)
        assert struct.unpack_from("!H", sockaddr, 2)[0] == server.getsockname()[1]
        pidfd = pidfd_open(seen.pid)
        with socket.socket(fileno=seccomp_notify.duplicate(pidfd, fd)) as theirs:
            assert theirs.type == socket.SOCK_STREAM
        os.close(pidfd)
        seccomp_notify.let_continue(listener, seen)
        assert os.read(reading, 10) == b"0"


def test_a_caller_that_was_killed_waits_no_more() -> None:
    with _watched(1) as (listener, child, _):
        seen = seccomp_notify.receive(listener)
        os.kill(child, 9)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert not seccomp_notify.still_waits(listener, seen)
        with pytest.raises(FileNotFoundError):
            seccomp_notify.let_continue(listener, seen)


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="process_vm_readv"):
        seccomp_notify.read_memory(os.getpid(), 8, 16)
