"""The funnel: every failure names the call and what it was about."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

import pytest

from sandboxd.linux import (
    capabilities,
    cgroup,
    mount,
    namespaces,
    openat2,
    pidfd,
    process,
    syscalls,
)

_MISSING = "/no/such/place"


@pytest.mark.needs_userns
@pytest.mark.outer
@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        (lambda: mount.mount("x", _MISSING, "tmpfs"), errno.ENOENT, ["mount tmpfs", _MISSING]),
        (lambda: mount.umount(_MISSING), errno.ENOENT, ["umount2", _MISSING]),
        (lambda: mount.pivot_root(_MISSING, _MISSING), errno.ENOENT, ["pivot_root", _MISSING]),
        (lambda: mount.open_tree(_MISSING), errno.ENOENT, ["open_tree", _MISSING]),
        (lambda: mount.mount_setattr(_MISSING, 1), errno.ENOENT, ["mount_setattr", _MISSING]),
        (lambda: mount.move_mount(-1, _MISSING), errno.ENOENT, ["move_mount", _MISSING]),
        (lambda: mount.new_filesystem("nofs"), errno.ENODEV, ["fsopen", "nofs"]),
        (lambda: namespaces.setns(-1, namespaces.CLONE_NEWNS), errno.EBADF, ["setns", "0x20000"]),
        (lambda: namespaces.unshare(1 << 29 | 1), errno.EINVAL, ["unshare", "0x20000001"]),
        (lambda: pidfd.pidfd_open(-1), errno.EINVAL, ["pidfd_open", "-1"]),
        (lambda: pidfd.pidfd_send_signal(-1, 9), errno.EBADF, ["pidfd_send_signal", "-1"]),
        (lambda: process.prctl(-1), errno.EINVAL, ["prctl", "-1"]),
        (lambda: process.close_from(9, 3), errno.EINVAL, ["close_range", "9"]),
        (lambda: openat2.openat2(-1, "x", os.O_PATH), errno.EBADF, ["openat2", "x"]),
        (lambda: capabilities.capget(1 << 30), errno.ESRCH, ["capget", str(1 << 30)]),
        (lambda: cgroup.Group((_MISSING,)).attach(1), errno.ENOENT, [_MISSING]),
    ],
)
def test_a_failure_names_the_call_and_the_path(
    call: Callable[[], object], number: int, words: list[str]
) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EPERM, PermissionError),
        (errno.ESRCH, ProcessLookupError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EINVAL, OSError),
    ],
)
def test_the_class_follows_errno(number: int, kind: type[OSError]) -> None:
    ctypes.set_errno(number)
    error = syscalls.oserror("call", b"/a/path")
    assert type(error) is kind
    assert str(error) == f"[Errno {number}] call /a/path: {os.strerror(number)}"


def test_no_path_leaves_no_gap() -> None:
    ctypes.set_errno(errno.EINVAL)
    assert str(syscalls.oserror("call")) == f"[Errno {errno.EINVAL}] call: Invalid argument"


def test_an_unknown_old_call_is_reported_as_missing() -> None:
    with pytest.raises(OSError, match="no_such_call") as caught:
        syscalls.own_number("no_such_call")
    assert caught.value.errno == errno.ENOSYS
