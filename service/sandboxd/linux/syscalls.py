"""The C library handle, raw system calls, and the one funnel from errno to an exception.

Numbers are those of the generic table that all calls newer than 5.0 share on every architecture
(asm-generic/unistd.h); older calls go through their C library wrappers.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = libc.syscall
_syscall.restype = ctypes.c_long
_syscall_in_lock: Final = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_in_lock.restype = ctypes.c_long

SYS_PIDFD_SEND_SIGNAL: Final = 424
SYS_OPEN_TREE: Final = 428
SYS_MOVE_MOUNT: Final = 429
SYS_FSOPEN: Final = 430
SYS_FSCONFIG: Final = 431
SYS_FSMOUNT: Final = 432
SYS_PIDFD_OPEN: Final = 434
SYS_CLONE3: Final = 435
SYS_CLOSE_RANGE: Final = 436
SYS_OPENAT2: Final = 437
SYS_PIDFD_GETFD: Final = 438
SYS_MOUNT_SETATTR: Final = 442

_MACHINE: Final = os.uname().machine
_OWN_NUMBERS: Final = {
    "x86_64": {"pivot_root": 155, "seccomp": 317, "capget": 125, "capset": 126},
    "aarch64": {"pivot_root": 41, "seccomp": 277, "capget": 90, "capset": 91},
}


def own_number(name: str) -> int:
    """The number of a call that is older than the shared table, on this machine's architecture.

    Raises OSError(ENOSYS) on an architecture that is neither x86_64 nor aarch64.
    """
    try:
        return _OWN_NUMBERS[_MACHINE][name]
    except KeyError:
        raise OSError(errno.ENOSYS, f"{name}: unknown number on {_MACHINE}") from None


def oserror(call: str, path: str | bytes | int = "") -> OSError:
    """The exception for the errno that the last call left: `CALL PATH: text`.

    The class follows errno (FileNotFoundError, PermissionError, ...), as Python's own calls do.
    """
    number = ctypes.get_errno()
    shown = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    return OSError(number, f"{call}{' ' if shown else ''}{shown}: {os.strerror(number)}")


def checked(call: str, result: int, path: str | bytes | int = "") -> int:
    """`result` of a C call, or the funnel's exception when it is negative."""
    if result < 0:
        raise oserror(call, path)
    return result


def syscall(call: str, path: str | bytes | int, number: int, *args: object) -> int:
    """syscall(2): a raw call whose failure names `call` and `path`."""
    return checked(call, _syscall(ctypes.c_long(number), *args), path)


def syscall_in_lock(call: str, path: str | bytes | int, number: int, *args: object) -> int:
    """The same without giving up the interpreter's lock, for calls that fork: in the child no
    other thread could give it back."""
    return checked(call, _syscall_in_lock(ctypes.c_long(number), *args), path)
