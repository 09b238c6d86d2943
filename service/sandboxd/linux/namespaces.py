"""Namespaces: unshare(2), setns(2), clone3(2) with the namespaces as data."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from typing import Final

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import checked, libc, syscall, syscall_in_lock

CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_VM: Final = 0x00000100
_CLONE_PIDFD: Final = 0x00001000
_CLONE_PARENT: Final = 0x00008000
_NS_GET_PARENT: Final = 0xB702
_NS_GET_USERNS: Final = 0xB701

CONTAINER: Final = (
    CLONE_NEWUSER
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWIPC
    | CLONE_NEWUTS
    | CLONE_NEWCGROUP
)
"""The seven namespaces of a container."""


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
        )
    )


def unshare(flags: int) -> None:
    """unshare(2): move this process into fresh namespaces (NEWPID: its next children)."""
    checked("unshare", libc.unshare(flags), hex(flags))


def setns(fd: int, flags: int = 0) -> None:
    """setns(2). With a pidfd (Linux 5.8) `flags` may name several namespaces, joined at once."""
    checked("setns", libc.setns(fd, flags), hex(flags))


def fork_into(flags: int = 0) -> tuple[int, int]:
    """clone3(2), Linux 5.3, with CLONE_PIDFD: fork into fresh namespaces.

    Returns (pid, pidfd) in the parent and (0, -1) in the child. No hook of Python's own fork runs:
    the child must not rely on os.register_at_fork, nor on a lock that another thread may hold.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags | _CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(args))
    pid = syscall_in_lock("clone3", hex(flags), syscalls.SYS_CLONE3, ctypes.byref(args), size)
    return pid, (pidfd.value if pid else -1)


def clone_sharing_memory(flags: int) -> None:
    """clone3(2) with CLONE_VM and CLONE_PARENT: a sibling in fresh namespaces, on this very stack.

    Returns in the sibling. The caller must be stopped inside the call, and must never leave it: the
    sibling has taken over its stack.
    """
    args = _CloneArgs(flags | _CLONE_VM | _CLONE_PARENT, 0, 0, 0, 0, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(args))
    syscall("clone3", hex(flags), syscalls.SYS_CLONE3, ctypes.byref(args), size)


def parent_namespace(fd: int) -> int:
    """ioctl_nsfs(2) NS_GET_PARENT, Linux 4.9: the user or pid namespace that `fd`'s lies in.

    Raises PermissionError when that is outside the caller's own.
    """
    return fcntl.ioctl(fd, _NS_GET_PARENT)


def open_namespace(pid: int | str, kind: str) -> int:
    """A descriptor of a process's namespace (namespaces(7)); `kind` is user, mnt, pid, net..."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def owner(namespace: int) -> int:
    """A descriptor of the user namespace that owns `namespace`: NS_GET_USERNS, ioctl_nsfs(2).

    Raises PermissionError where it is neither the caller's own nor one below.
    """
    return fcntl.ioctl(namespace, _NS_GET_USERNS)
