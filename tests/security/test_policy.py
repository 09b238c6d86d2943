"""The system call policy as a program: what it answers to every number, on both machines.

A small interpreter of classic BPF runs the program that the kernel would run.
"""

from __future__ import annotations

import errno
import struct
from itertools import combinations

import pytest

from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.seccomp_policy import ALLOWED, GATED, build_filter
from sandboxd.linux import seccomp
from sandboxd.linux.capabilities import NAMES
from sandboxd.linux.syscall_numbers import NUMBERS

_DEFAULT = frozenset(DEFAULT_CAPABILITIES)
_ALLOW = "allow"
_EPERM = errno.EPERM
_ENOSYS = errno.ENOSYS


def _run(program: bytes, data: bytes) -> tuple[int, int]:
    """Return value and number of instructions: bpf(4), of which we use load, jump and return."""
    at, accumulator, steps = 0, 0, 0
    while True:
        code, then, otherwise, operand = struct.unpack_from("=HBBI", program, 8 * at)
        at, steps = at + 1, steps + 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x06:
            return operand, steps
        else:
            hit = {
                seccomp.EQUAL: accumulator == operand,
                seccomp.AT_LEAST: accumulator >= operand,
                seccomp.ANY_BIT: bool(accumulator & operand),
            }[code]
            at += then if hit else otherwise


def _answer(
    machine: str,
    number: int,
    *arguments: int,
    capabilities: frozenset[str] = _DEFAULT,
    arch: int | None = None,
) -> str | int:
    """`allow`, `kill`, or the errno."""
    arch = seccomp.AUDIT_ARCH[machine] if arch is None else arch
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    action, _ = _run(build_filter(capabilities, machine), data)
    if action == seccomp.RET_ALLOW:
        return _ALLOW
    return "kill" if action == seccomp.RET_KILL_PROCESS else action & 0xFFFF


@pytest.fixture(params=sorted(NUMBERS))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_name_of_the_policy_exists_somewhere() -> None:
    known = {name for table in NUMBERS.values() for name in table}
    assert ALLOWED - known == set()
    assert {name for names in GATED.values() for name in names} - known == set()
    assert {*GATED} - {*NAMES} == set()


def test_every_number_gets_the_answer_of_its_name(machine: str) -> None:
    by_argument = {"clone", "ioctl", "personality", "socket"}
    gated = {name for cap in _DEFAULT for name in GATED.get(cap, ())}
    for name, number in NUMBERS[machine].items():
        expected: str | int = _ALLOW if name in ALLOWED | gated | by_argument else _EPERM
        if name == "clone3":
            expected = _ENOSYS
        arguments = (1,) if name == "socket" else ()
        assert _answer(machine, number, *arguments) == expected, name


@pytest.mark.parametrize(
    "name",
    """
    keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd
    kexec_load kexec_file_load pivot_root mount umount2 fsopen fsmount fsconfig fspick open_tree
    open_tree_attr move_mount mount_setattr unshare setns bpf perf_event_open fanotify_init quotactl
    init_module finit_module delete_module reboot swapon swapoff acct syslog settimeofday
    clock_settime sethostname setdomainname open_by_handle_at lookup_dcookie kcmp pidfd_getfd
    process_madvise move_pages migrate_pages mbind set_mempolicy nfsservctl vhangup
    """.split(),
)
def test_dangerous_calls_are_refused(machine: str, name: str) -> None:
    assert _answer(machine, NUMBERS[machine][name]) == _EPERM


@pytest.mark.parametrize("number", [400, 423, 468, 999, 0x40000000, 0x40000027, 0xFFFFFFFF])
def test_unknown_and_x32_numbers_do_not_exist(machine: str, number: int) -> None:
    assert _answer(machine, number) == _ENOSYS


def test_a_foreign_abi_is_killed(machine: str) -> None:
    for arch in (0x40000003, 0x40000028, 0, *seccomp.AUDIT_ARCH.values()):
        own = arch == seccomp.AUDIT_ARCH[machine]
        assert _answer(machine, NUMBERS[machine]["read"], arch=arch) == (_ALLOW if own else "kill")


@pytest.mark.parametrize("shift", [7, 17, 25, 26, 27, 28, 29, 30])
def test_clone_takes_no_namespace_flag(machine: str, shift: int) -> None:
    number = NUMBERS[machine]["clone"]
    # CLONE_NEWTIME (bit 7) lies in clone's exit signal: only clone3 and unshare know it.
    expected = _ALLOW if shift == 7 else _EPERM
    assert _answer(machine, number, 1 << shift | 17) == expected
    assert _answer(machine, number, 1 << 40 | 1 << shift | 17) == expected


def test_clone_for_threads_and_forks_is_allowed(machine: str) -> None:
    for flags in (17, 0x3D0F00, 0x01200011, 0x4111):
        assert _answer(machine, NUMBERS[machine]["clone"], flags) == _ALLOW


@pytest.mark.parametrize("family", [1, 2, 10, 16, 17])
def test_ordinary_sockets_are_allowed(machine: str, family: int) -> None:
    assert _answer(machine, NUMBERS[machine]["socket"], family, 1, 0) == _ALLOW


@pytest.mark.parametrize("family", [0, 38, 40, 46, 1 << 31, 1 << 32 | 38, 1 << 63 | 40])
def test_dangerous_sockets_are_refused(machine: str, family: int) -> None:
    assert _answer(machine, NUMBERS[machine]["socket"], family, 1, 0) == _EPERM


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 1 << 32 | 0x5412, 1 << 63 | 0x541C])
def test_terminal_injection_is_refused(machine: str, request_number: int) -> None:
    assert _answer(machine, NUMBERS[machine]["ioctl"], 0, request_number) == _EPERM


@pytest.mark.parametrize("request_number", [0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x5421])
def test_other_ioctls_are_allowed(machine: str, request_number: int) -> None:
    assert _answer(machine, NUMBERS[machine]["ioctl"], 0, request_number) == _ALLOW


def test_personalities(machine: str) -> None:
    number = NUMBERS[machine]["personality"]
    for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert _answer(machine, number, persona) == _ALLOW
    # ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC weaken a set-user-ID program's defences.
    for persona in (0x40000, 0x400000, 4, 0x20004):
        assert _answer(machine, number, persona) == _EPERM


@pytest.mark.parametrize("capability", sorted(GATED))
def test_a_capability_opens_its_calls_and_no_others(machine: str, capability: str) -> None:
    opened = {name for name in GATED[capability] if name in NUMBERS[machine]}
    opened -= {name for cap in _DEFAULT for name in GATED.get(cap, ())} | {"clone", "clone3"}
    for name, number in NUMBERS[machine].items():
        before = _answer(machine, number, 1)
        after = _answer(machine, number, 1, capabilities=_DEFAULT | {capability})
        if name in opened:
            assert (before, after) == (_EPERM, _ALLOW), name
        elif name not in ("clone", "clone3"):
            assert before == after, name


def test_only_sys_admin_opens_namespaces(machine: str) -> None:
    numbers = NUMBERS[machine]
    admin = _DEFAULT | {"SYS_ADMIN"}
    assert _answer(machine, numbers["clone"], 1 << 28, capabilities=admin) == _ALLOW
    assert _answer(machine, numbers["clone3"], capabilities=admin) == _ALLOW
    others = frozenset(NAMES) - {"SYS_ADMIN"}
    assert _answer(machine, numbers["clone"], 1 << 28, capabilities=others) == _EPERM
    assert _answer(machine, numbers["clone3"], capabilities=others) == _ENOSYS


def test_no_capability_opens_what_is_absent(machine: str) -> None:
    every = frozenset(NAMES)
    for name in ("keyctl", "io_uring_setup", "userfaultfd", "kexec_load", "pivot_root"):
        assert _answer(machine, NUMBERS[machine][name], capabilities=every) == _EPERM
    assert _answer(machine, NUMBERS[machine]["socket"], 38, capabilities=every) == _EPERM
    assert _answer(machine, NUMBERS[machine]["ioctl"], 0, 0x5412, capabilities=every) == _EPERM


def test_every_set_of_capabilities_compiles(machine: str) -> None:
    gates = sorted(GATED)
    chosen = [frozenset(), frozenset(NAMES), *map(frozenset, combinations(gates, 2))]
    assert all(len(build_filter(names, machine)) // 8 < 200 for names in chosen)


def test_a_decision_takes_few_instructions(machine: str) -> None:
    """The kernel runs it over all numbers at load, and over each call whose argument decides."""
    program = build_filter(_DEFAULT, machine)
    for number in NUMBERS[machine].values():
        data = struct.pack("=IIQ6Q", number, seccomp.AUDIT_ARCH[machine], 0, *[0] * 6)
        assert _run(program, data)[1] <= 24


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(OSError, match="riscv64"):
        build_filter(_DEFAULT, "riscv64")


def test_the_default_is_made_once() -> None:
    assert build_filter(_DEFAULT) is build_filter(frozenset(reversed(DEFAULT_CAPABILITIES)))
