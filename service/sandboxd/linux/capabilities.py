"""Capabilities: names, the five sets of capabilities(7), and the one way a container gets its own.

A set is an int with one bit for each capability. Names are written without CAP_.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection
from functools import cache
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest
from sandboxd.linux.syscalls import checked, libc, oserror, own_number, syscall

_TABLE: Final = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES: Final = tuple(_TABLE.split())
"""By number: linux/capability.h, complete up to Linux 5.9."""

_NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522
_HEADER: Final = struct.Struct("=Ii")
"""struct __user_cap_header_struct: version, pid."""
_DATA: Final = struct.Struct("=6I")
"""Two struct __user_cap_data_struct: effective, permitted, inheritable; low words, high words."""
_LOW_WORD: Final = 0xFFFFFFFF


_prctl_numbers = libc["prctl"]
"""A handle of its own: with declared types, thirty calls in a row cost half."""
_prctl_numbers.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


class Sets(NamedTuple):
    """What capget(2) reports of one thread."""

    effective: int
    permitted: int
    inheritable: int


def canonical(name: str) -> str:
    """`cap_chown`, `CAP_CHOWN` or `chown` as `CHOWN`. Raises BadRequest for an unknown name."""
    known = name.upper().removeprefix("CAP_")
    if known not in _NUMBERS:
        raise BadRequest(f'invalid capability: "{name}"', "capabilities(7) has no such name")
    return known


def to_mask(names: Collection[str]) -> int:
    """The set with these capabilities. Raises BadRequest for an unknown name."""
    return sum({1 << _NUMBERS[canonical(name)] for name in names})


def to_names(mask: int) -> tuple[str, ...]:
    """The names in a set, by number; a bit newer than this table shows as its number."""
    bits = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return tuple(NAMES[bit] if bit < len(NAMES) else str(bit) for bit in bits)


@cache
def last_cap() -> int:
    """The highest capability of this kernel: proc_sys_kernel(5), Linux 3.2."""
    with open("/proc/sys/kernel/cap_last_cap") as number:
        return int(number.read())


def capget(pid: int = 0) -> Sets:
    """capget(2): the sets of a thread; 0 is the caller. Raises OSError."""
    data = ctypes.create_string_buffer(_DATA.size)
    syscall("capget", pid, own_number("capget"), _HEADER.pack(_VERSION_3, pid), data)
    words = _DATA.unpack(data.raw)
    return Sets(*(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True)))


def capset(sets: Sets) -> None:
    """capset(2) for the calling thread. Raises PermissionError for what is not permitted."""
    low, high = (mask & _LOW_WORD for mask in sets), (mask >> 32 for mask in sets)
    data = _DATA.pack(*low, *high)
    syscall("capset", "", own_number("capset"), _HEADER.pack(_VERSION_3, 0), data)


def bounding() -> int:
    """The bounding set, by PR_CAPBSET_READ(2const), Linux 2.6.25."""
    return sum(_prctl(_PR_CAPBSET_READ, number) << number for number in range(last_cap() + 1))


def drop_bounding(keep: Collection[str]) -> None:
    """Take all but `keep` from the bounding set: PR_CAPBSET_DROP(2const). Needs SETPCAP.

    No program that is executed later, set-user-ID or not, can gain what was dropped.
    """
    kept = to_mask(keep)
    for number in range(last_cap() + 1):
        if not kept >> number & 1 and _prctl_numbers(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            raise oserror("prctl", f"capability {number}")


def clear_ambient() -> None:
    """PR_CAP_AMBIENT_CLEAR_ALL(2const), Linux 4.3."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def set_exactly(names: Collection[str]) -> None:
    """Hold these capabilities, effective and permitted, and no others.

    Inheritable and ambient end up empty (CVE-2022-27650), so that execve(2) gives root what the
    bounding set still has and everybody else nothing. As in Docker, a user other than root gets no
    effective capability: call this with () after the ids were changed. Raises PermissionError.
    """
    held = to_mask(names)
    clear_ambient()
    capset(Sets(effective=held, permitted=held, inheritable=0))


def _prctl(option: int, number: int) -> int:
    return checked("prctl", _prctl_numbers(option, number, 0, 0, 0), f"capability {number}")
