"""What a process is and may: prctl(2), close_range(2), host and domain names."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import checked, libc, syscall

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38

CLOSE_RANGE_CLOEXEC: Final = 4
_LAST_FD: Final = 0xFFFFFFFF


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) for the options that take one number."""
    zero = ctypes.c_ulong(0)
    return checked("prctl", libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero), option)


def set_parent_death_signal(signal: int) -> None:
    """PR_SET_PDEATHSIG(2const): `signal` arrives here when the thread that forked us ends."""
    prctl(PR_SET_PDEATHSIG, signal)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS(2const), Linux 3.5: set-user-ID and file capabilities grant nothing."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """PR_SET_NAME(2const): the name that ps and top show, 15 bytes of it."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    checked("prctl", libc.prctl(PR_SET_NAME, buffer, 0, 0, 0), name)


def close_from(first: int, last: int = _LAST_FD, flags: int = 0) -> None:
    """close_range(2), Linux 5.9: close descriptors `first` to `last`, or mark them (5.11)."""
    arguments = (ctypes.c_uint(first), ctypes.c_uint(last), flags)
    syscall("close_range", first, syscalls.SYS_CLOSE_RANGE, *arguments)


def sethostname(name: str) -> None:
    """sethostname(2), at most 64 bytes."""
    encoded = os.fsencode(name)
    checked("sethostname", libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), name)


def setdomainname(name: str) -> None:
    """setdomainname(2), at most 64 bytes."""
    encoded = os.fsencode(name)
    checked("setdomainname", libc.setdomainname(encoded, ctypes.c_size_t(len(encoded))), name)
