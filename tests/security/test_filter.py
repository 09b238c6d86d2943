"""The default filter in the kernel: what a filtered process may still do and what it may not."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from sandboxd.launcher import profile
from sandboxd.linux import namespaces, process
from sandboxd.linux.syscall_numbers import NUMBERS

_OWN = NUMBERS[os.uname().machine]
_DEFAULT = frozenset(profile.DEFAULT_CAPABILITIES)


def _in_filtered_child(body: Callable[[], object], names: frozenset[str] = _DEFAULT) -> str:
    """What `body` returned, or the name of the errno that it failed with, or the exception."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        profile.prepared_filter(names).install()
        try:
            answer = str(body())
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def _call(name: str, *arguments: int) -> Callable[[], int]:
    def call() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(_OWN[name], *map(ctypes.c_ulong, arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), name)
        return int(result)

    return call


@pytest.mark.parametrize(
    "name",
    """
    keyctl unshare io_uring_setup mount umount2 bpf perf_event_open userfaultfd setns pivot_root
    fsopen open_tree move_mount mount_setattr add_key request_key kexec_load init_module reboot
    """.split(),
)
def test_a_dangerous_call_is_refused(name: str) -> None:
    assert _in_filtered_child(_call(name, 0, 0, 0, 0, 0)) == "EPERM"


def test_clone3_does_not_exist() -> None:
    assert _in_filtered_child(_call("clone3", 0, 0)) == "ENOSYS"


@pytest.mark.parametrize("flag", [1 << shift for shift in (17, 25, 26, 27, 28, 29, 30)])
def test_clone_makes_no_namespace(flag: int) -> None:
    assert _in_filtered_child(_call("clone", flag | 17, 0, 0, 0, 0)) == "EPERM"


@pytest.mark.parametrize("family", [socket.AF_ALG, socket.AF_VSOCK])
def test_no_door_to_the_hypervisor_or_the_kernels_crypto(family: int) -> None:
    assert _in_filtered_child(lambda: socket.socket(family, socket.SOCK_SEQPACKET)) == "EPERM"
    high_bits = _call("socket", 1 << 32 | family, socket.SOCK_SEQPACKET, 0)
    assert _in_filtered_child(high_bits) == "EPERM"


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 1 << 32 | 0x5412])
def test_nothing_is_typed_into_a_terminal(request_number: int) -> None:
    master, slave = pty.openpty()
    letter = ctypes.create_string_buffer(b"x")
    call = _call("ioctl", slave, request_number, ctypes.addressof(letter))
    assert _in_filtered_child(call) == "EPERM"
    os.close(master)
    os.close(slave)


def test_a_terminal_still_works() -> None:
    master, slave = pty.openpty()
    assert _in_filtered_child(lambda: len(fcntl.ioctl(slave, 0x5413, bytes(8)))) == "8"
    os.close(master)
    os.close(slave)


def test_x32_and_unknown_numbers_do_not_exist() -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def call() -> str:
        found = []
        for number in (0x40000000 | _OWN["getpid"], 999):
            libc.syscall(number)
            found.append(errno.errorcode[ctypes.get_errno()])
        return ",".join(found)

    assert _in_filtered_child(call) == "ENOSYS,ENOSYS"


def test_a_filtered_process_lives_an_ordinary_life() -> None:
    def life() -> str:
        with socket.socket() as listener, socket.socket(socket.AF_UNIX) as other:
            listener.bind(("127.0.0.1", 0))
            assert other.fileno() > 0
        worker = threading.Thread(target=time.sleep, args=(0,))
        worker.start()
        worker.join()
        done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True)
        return done.stdout.decode().strip()

    assert _in_filtered_child(life) == "42"


def test_children_are_filtered_too() -> None:
    code = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.unshare(0x10000000))"

    def child() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        return done.stdout.decode().strip()

    assert _in_filtered_child(child) == "-1"


@pytest.mark.needs_userns
def test_with_sys_admin_the_filter_lets_namespaces_pass() -> None:
    def unshare() -> str:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        return "passed"

    refused = _in_filtered_child(unshare)
    passed = _in_filtered_child(unshare, _DEFAULT | {"SYS_ADMIN"})
    assert (refused, passed) == ("EPERM", "passed")
