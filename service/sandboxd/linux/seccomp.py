"""System call filters: a small assembler for classic BPF, and seccomp(2) to install its output.

A program reads `struct seccomp_data` (seccomp(2)) four bytes at a time and returns an action.
Jumps only go forward, so the order is: tests first, returns last.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence
from typing import Final

from sandboxd.linux.syscalls import own_number, syscall

RET_KILL_PROCESS: Final = 0x80000000
RET_ALLOW: Final = 0x7FFF0000
RET_USER_NOTIF: Final = 0x7FC00000
"""The call waits until the listener has answered: seccomp_unotify(2), Linux 5.0."""
_RET_ERRNO: Final = 0x00050000

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine, as uname(2) calls it, to the value of `seccomp_data.arch`: linux/audit.h."""

NUMBER_OFFSET: Final = 0
ARCH_OFFSET: Final = 4
_ARGUMENTS_OFFSET: Final = 16

_LOAD_WORD: Final = 0x20
_RETURN: Final = 0x06
EQUAL: Final = 0x15
AT_LEAST: Final = 0x35
ANY_BIT: Final = 0x45
"""BPF_JMP with BPF_JEQ, BPF_JGE (unsigned) and BPF_JSET against a constant: linux/bpf_common.h."""

NEXT: Final = ""
"""The label of whatever instruction follows."""

_SET_MODE_FILTER: Final = 1
_FLAG_SPEC_ALLOW: Final = 4
_FLAG_NEW_LISTENER: Final = 8
_FLAG_WAIT_KILLABLE_RECV: Final = 32
_REACH: Final = 255


def ret_errno(number: int) -> int:
    """SECCOMP_RET_ERRNO: the call is not made and fails with this errno."""
    return _RET_ERRNO | number


def low_word(argument: int) -> int:
    """The offset of the low 32 bits of system call argument 0 to 5 (both machines: low first).

    Compare only these where the kernel itself takes an int, as it drops the high half in silence.
    """
    return _ARGUMENTS_OFFSET + 8 * argument


class Program:
    """Instructions with labels for jump targets; `assemble` packs them as struct sock_filter."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """Put the 32-bit word at `offset` of seccomp_data into the accumulator."""
        self._code.append((_LOAD_WORD, NEXT, NEXT, offset))

    def branch(self, test: int, operand: int, then: str = NEXT, otherwise: str = NEXT) -> None:
        """Compare the accumulator with `operand` and go on at one label or the other."""
        self._code.append((test, then, otherwise, operand))

    def one_of(self, values: Sequence[int], then: str, otherwise: str) -> None:
        """Go to `then` when the accumulator equals one of `values`, else to `otherwise`."""
        for value in values[:-1]:
            self.branch(EQUAL, value, then)
        self.branch(EQUAL, values[-1], then, otherwise)

    def ret(self, action: int) -> None:
        """End: the kernel does as `action` says (a RET_ value)."""
        self._code.append((_RETURN, NEXT, NEXT, action))

    def mark(self, label: str) -> None:
        """Give the next instruction a name. Raises ValueError when the name is taken."""
        if label in self._labels:
            raise ValueError(f"label {label} is already placed")
        self._labels[label] = len(self._code)

    def search(self, ranges: Sequence[tuple[int, str]]) -> None:
        """Binary search: go to the label of the last range whose first value is not above A.

        `ranges` holds (first value, label), ascending, the first at 0: one comparison for each
        level, which also keeps the kernel's own run over all numbers at load time short.
        """
        if len(ranges) < 2:
            raise ValueError("nothing to search: one range is no decision")
        middle = len(ranges) // 2
        low, high = ranges[:middle], ranges[middle:]
        right = high[0][1] if len(high) == 1 else f"search {len(self._code)} {high[0][0]:#x}"
        self.branch(AT_LEAST, high[0][0], right, low[0][1] if len(low) == 1 else NEXT)
        if len(low) > 1:
            self.search(low)
        if len(high) > 1:
            self.mark(right)
            self.search(high)

    def assemble(self) -> bytes:
        """The program for the kernel. Raises ValueError for a jump back or beyond 255."""
        return b"".join(
            struct.pack("=HBBI", code, self._jump(at, then), self._jump(at, otherwise), operand)
            for at, (code, then, otherwise, operand) in enumerate(self._code)
        )

    def _jump(self, at: int, label: str) -> int:
        distance = 0 if label == NEXT else self._labels[label] - at - 1
        if not 0 <= distance <= _REACH:
            raise ValueError(f"instruction {at}: {label} is {distance} instructions away")
        return distance


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class PreparedFilter:
    """A program in memory that the kernel can read at once, so that `install` is one call."""

    def __init__(self, program: bytes) -> None:
        self._instructions = ctypes.create_string_buffer(program, len(program))
        address = ctypes.addressof(self._instructions)
        self._program = _SockFprog(len(program) // 8, address)
        self._number = own_number("seccomp")

    def install(self) -> None:
        """seccomp(2) SECCOMP_SET_MODE_FILTER, Linux 3.17: filter this thread for good.

        Needs no_new_privs or CAP_SYS_ADMIN. SECCOMP_FILTER_FLAG_SPEC_ALLOW (Linux 4.17) leaves the
        speculation mitigations as they are: with them, every context switch would pay.
        """
        self._load(_FLAG_SPEC_ALLOW)

    def install_listened(self) -> int:
        """The same, for a program with RET_USER_NOTIF; the descriptor that its listener reads.

        A signal does not interrupt a call that the listener has taken (Linux 5.19). Raises
        OSError(EBUSY) where a filter of this thread has a listener already.
        """
        flags = _FLAG_SPEC_ALLOW | _FLAG_NEW_LISTENER
        try:
            return self._load(flags | _FLAG_WAIT_KILLABLE_RECV)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return self._load(flags)

    def _load(self, flags: int) -> int:
        pointer = ctypes.byref(self._program)
        return syscall("seccomp", "filter", self._number, _SET_MODE_FILTER, flags, pointer)
