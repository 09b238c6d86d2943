"""The tables of system call numbers against the kernel's own headers and the kernel itself."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import pytest

from sandboxd.linux import syscalls
from sandboxd.linux.syscall_numbers import NUMBERS

_HEADERS = [
    *Path("/usr/include").glob("x86_64-linux-gnu/asm/unistd_64.h"),
    *Path("/usr/include").glob("asm/unistd_64.h"),
]


def test_the_x86_64_table_is_the_kernels() -> None:
    if not _HEADERS:
        pytest.skip("no kernel headers")
    defined = re.findall(r"#define __NR_(\w+) (\d+)", _HEADERS[0].read_text())
    ours = NUMBERS["x86_64"]
    assert {name: ours.get(name) for name, _ in defined if name in ours} == {
        name: int(number) for name, number in defined if name in ours
    }
    newest = max(ours.values())
    assert [name for name, number in defined if int(number) <= newest and name not in ours] == []


def test_both_tables_have_the_landmarks() -> None:
    x86_64, aarch64 = NUMBERS["x86_64"], NUMBERS["aarch64"]
    assert [x86_64[name] for name in ("read", "clone", "execve", "rseq")] == [0, 56, 59, 334]
    assert [aarch64[name] for name in ("io_setup", "openat", "clone", "execve")] == [
        0,
        56,
        220,
        221,
    ]
    assert [aarch64[name] for name in ("accept4", "wait4", "rseq")] == [242, 260, 293]
    assert x86_64["mseal"] == aarch64["mseal"] == 462


def test_the_numbers_that_the_wrappers_use_agree() -> None:
    for machine in NUMBERS.values():
        assert machine["openat2"] == syscalls.SYS_OPENAT2
        assert machine["mount_setattr"] == syscalls.SYS_MOUNT_SETATTR
        assert machine["clone3"] == syscalls.SYS_CLONE3
    own = NUMBERS[os.uname().machine]
    assert all(own[name] == syscalls.own_number(name) for name in ("seccomp", "capset"))


def test_the_kernel_answers_to_our_numbers() -> None:
    libc = ctypes.CDLL(None)
    own = NUMBERS[os.uname().machine]
    assert libc.syscall(own["getpid"]) == os.getpid()
    assert libc.syscall(own["getppid"]) == os.getppid()
    assert libc.syscall(own["getuid"]) == os.getuid()
