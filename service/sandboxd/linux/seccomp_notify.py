"""The listener's side of a system call filter with RET_USER_NOTIF: seccomp_unotify(2).

The calls of whoever is under the filter stop until they are answered here, by one process that
holds the listener's descriptor. What it reads of a caller's memory may have been exchanged by
another thread before the call goes on: good for seeing, not for deciding.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Final, NamedTuple

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import checked, libc, syscall

_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_ID_VALID: Final = 0x40082102
"""SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_IOCTL_NOTIF_ID_VALID."""
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif with its struct seccomp_data."""
_RESPONSE: Final = struct.Struct("=QqiI")
"""struct seccomp_notif_resp."""
_CONTINUE: Final = 1


class Notification(NamedTuple):
    """A call that waits; `pid` is the calling thread, as the reader's own /proc shows it."""

    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def receive(listener: int) -> Notification:
    """The next call that waits. Raises FileNotFoundError when its caller was killed meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    fcntl.ioctl(listener, _RECEIVE, buffer)
    id_, pid, _flags, number, _arch, _ip, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(id_, pid, number, tuple(arguments))


def let_continue(listener: int, notification: Notification) -> None:
    """SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5: the kernel makes the call as it stands.

    Raises FileNotFoundError when the caller is gone.
    """
    fcntl.ioctl(listener, _SEND, _RESPONSE.pack(notification.id, 0, 0, _CONTINUE))


def still_waits(listener: int, notification: Notification) -> bool:
    """Whether the caller is still there, so that its pid has meant nobody else so far."""
    try:
        fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", notification.id))
    except FileNotFoundError:
        return False
    return True


def read_memory(pid: int, address: int, length: int) -> bytes:
    """process_vm_readv(2): up to `length` bytes of another process. Raises OSError."""
    buffer = ctypes.create_string_buffer(length)
    here = _IoVec(ctypes.addressof(buffer), length)
    there = _IoVec(address, length)
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    vectors = ctypes.byref(here), one, ctypes.byref(there), one
    taken = libc.process_vm_readv(pid, *vectors, zero)
    return buffer.raw[: checked("process_vm_readv", taken, pid)]


def duplicate(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2), Linux 5.6: a descriptor of another process, here. Raises OSError."""
    copy = syscall("pidfd_getfd", fd, syscalls.SYS_PIDFD_GETFD, pidfd, fd, 0)
    os.set_inheritable(copy, False)
    return copy
