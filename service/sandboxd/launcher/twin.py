"""Forking a process that shares its memory with a twin that never runs.

execve(2) takes the caller's memory apart before the new program begins: for a Python process 0.5 to
1 ms, of which whoever asked for the program waits. It does not where another process has the same
memory. So a child of the fork server makes the slot by clone(2) with CLONE_VM, and ptrace(2) holds
it inside that call for ever: it is the twin. When the slot has executed its command the twin is
killed, and takes the memory apart while nobody waits.

The two have one stack as well. That is sound because the twin never returns from its call: it is
killed there, by `bury` or by the kernel when the fork server ends.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Final, NoReturn

from sandboxd.linux import namespaces, pidfd, ptrace
from sandboxd.linux import process as own_process

_GO: Final = b"g"


def possible() -> bool:
    """Whether this machine lets a process trace its own child."""
    held, pidfd_ = namespaces.fork_into()
    if held == 0:
        signal.pause()
        os._exit(0)
    try:
        ptrace.seize(held)
        return True
    except OSError:
        return False
    finally:
        bury(pidfd_)
        pidfd.reap(pidfd_)
        os.close(pidfd_)


def fork(flags: int, ours: socket.socket, theirs: socket.socket) -> tuple[int, int, int]:
    """A child in fresh namespaces that shares its memory with a twin: (pid, pidfd, twin's pidfd).

    In the child it returns (0, -1, -1); of all descriptors it has `theirs` and 0 to 2. The pair of
    packet sockets is used in between. Raises what clone3(2) raises there.
    """
    twin, twin_pidfd = namespaces.fork_into()
    if twin == 0:
        _become_twin(flags, theirs)
        return 0, -1, -1
    try:
        ptrace.seize(twin)
        ours.send(_GO)
        pid = ptrace.wait_for_fork(twin)
        if pid is None:
            raise OSError(int.from_bytes(ours.recv(4), "little"), "clone3")
        ptrace.release(pid)
        return pid, pidfd.pidfd_open(pid), twin_pidfd
    except BaseException:
        bury(twin_pidfd)
        os.close(twin_pidfd)
        raise


def bury(twin_pidfd: int) -> None:
    """Kill a twin; whoever waits for its end gets it from the pidfd."""
    try:
        pidfd.pidfd_send_signal(twin_pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _become_twin(flags: int, told: socket.socket) -> None:
    """Returns in the new child only."""
    if told.fileno() > 3:
        own_process.close_from(3, told.fileno() - 1)
    own_process.close_from(told.fileno() + 1)
    own_process.set_name("sandbox-twin")
    told.recv(1)
    try:
        namespaces.clone_sharing_memory(flags)
    except OSError as error:
        _fail(told, error)


def _fail(told: socket.socket, error: OSError) -> NoReturn:
    told.send((error.errno or errno.EIO).to_bytes(4, "little"))
    os._exit(1)
