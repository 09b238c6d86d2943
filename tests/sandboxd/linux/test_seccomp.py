"""The assembler, and filters that the kernel really runs."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

import pytest

from sandboxd.linux import process, seccomp
from sandboxd.linux.seccomp import AT_LEAST, EQUAL, NEXT, PreparedFilter, Program
from sandboxd.linux.syscall_numbers import NUMBERS

_OWN = NUMBERS[os.uname().machine]


def _filtered(program: Program, *call: int) -> tuple[int, int]:
    """Result and errno of one system call in a child under `program`; a signal is negative."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        PreparedFilter(program.assemble()).install()
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(*map(ctypes.c_ulong, call))
        os.write(writing, struct.pack("ii", result, ctypes.get_errno()))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return struct.unpack("ii", answer) if answer else (os.waitstatus_to_exitcode(status), 0)


def _deciding(test_and_returns: Program) -> Program:
    """Add a return for each of the labels `deny` and `allow`."""
    test_and_returns.mark("deny")
    test_and_returns.ret(seccomp.ret_errno(errno.EDOM))
    test_and_returns.mark("allow")
    test_and_returns.ret(seccomp.RET_ALLOW)
    return test_and_returns


def test_a_call_is_refused_by_number() -> None:
    program = Program()
    program.load(seccomp.NUMBER_OFFSET)
    program.branch(EQUAL, _OWN["getppid"], "deny", "allow")
    _deciding(program)
    assert _filtered(program, _OWN["getppid"]) == (-1, errno.EDOM)
    assert _filtered(program, _OWN["getuid"])[0] == os.getuid()


def test_an_argument_is_compared_on_its_low_half() -> None:
    program = Program()
    program.load(seccomp.NUMBER_OFFSET)
    program.branch(EQUAL, _OWN["personality"], NEXT, "allow")
    program.load(seccomp.low_word(0))
    program.one_of((0x1111, 0xFFFFFFFF), "deny", "allow")
    _deciding(program)
    call = _OWN["personality"]
    for denied in (0x1111, 0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF, 0x1_00001111):
        assert _filtered(program, call, denied) == (-1, errno.EDOM)
    assert _filtered(program, call, 0)[0] >= 0


def test_a_foreign_architecture_is_told_apart() -> None:
    program = Program()
    program.load(seccomp.ARCH_OFFSET)
    program.branch(EQUAL, seccomp.AUDIT_ARCH[os.uname().machine], "allow", "deny")
    _deciding(program)
    assert _filtered(program, _OWN["getuid"])[0] == os.getuid()


def test_kill_process_ends_it_by_sigsys() -> None:
    program = Program()
    program.load(seccomp.NUMBER_OFFSET)
    program.branch(EQUAL, _OWN["getppid"], NEXT, "allow")
    program.ret(seccomp.RET_KILL_PROCESS)
    program.mark("allow")
    program.ret(seccomp.RET_ALLOW)
    assert _filtered(program, _OWN["getppid"]) == (-signal.SIGSYS, 0)


@pytest.mark.parametrize("count", [2, 3, 7, 8, 100])
def test_search_finds_every_range(count: int) -> None:
    """Each range denies with an errno of its own, looked up through personality's argument."""
    program = Program()
    program.load(seccomp.NUMBER_OFFSET)
    program.branch(EQUAL, _OWN["personality"], NEXT, "allow")
    program.load(seccomp.low_word(0))
    program.search([(10 * index, f"range {index}") for index in range(count)])
    for index in range(count):
        program.mark(f"range {index}")
        program.ret(seccomp.ret_errno(index + 1))
    program.mark("allow")
    program.ret(seccomp.RET_ALLOW)
    for value in (0, 9, 10, 19, 10 * count - 11, 10 * count - 10, 10 * count, 0xFFFFFFFF):
        expected = min(value // 10, count - 1) + 1
        assert _filtered(program, _OWN["personality"], value) == (-1, expected)


def test_search_needs_a_choice() -> None:
    with pytest.raises(ValueError, match="one range"):
        Program().search([(0, "only")])


def test_a_label_is_placed_once() -> None:
    program = Program()
    program.mark("here")
    with pytest.raises(ValueError, match="already"):
        program.mark("here")


def test_jumps_only_go_forward_and_not_too_far() -> None:
    back = Program()
    back.mark("start")
    back.load(0)
    back.branch(AT_LEAST, 1, "start")
    with pytest.raises(ValueError, match="start"):
        back.assemble()
    far = Program()
    far.branch(AT_LEAST, 1, "end")
    for _ in range(256):
        far.load(0)
    far.mark("end")
    far.ret(seccomp.RET_ALLOW)
    with pytest.raises(ValueError, match="256"):
        far.assemble()


def test_a_program_that_the_kernel_rejects_is_an_error() -> None:
    program = Program()
    program.load(seccomp.NUMBER_OFFSET)
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        try:
            PreparedFilter(program.assemble()).install()
        except OSError as error:
            os._exit(error.errno or 255 if "seccomp filter" in str(error) else 255)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EINVAL
