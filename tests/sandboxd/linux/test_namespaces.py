"""Namespaces entered, joined and forked into."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from sandboxd.linux import namespaces, process
from sandboxd.linux.pidfd import reap

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


def _identity(pid: int | str = "self") -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _KINDS}


def test_a_container_shares_no_namespace_with_us() -> None:
    waiting, release = os.pipe()
    pid, pidfd = namespaces.fork_into(namespaces.CONTAINER)
    if pid == 0:
        os.close(release)
        os.read(waiting, 1)
        os._exit(7 if os.getpid() == 1 else 1)
    theirs, ours = _identity(pid), _identity()
    assert [kind for kind in _KINDS if theirs[kind] == ours[kind]] == []
    os.close(release)
    assert select.select([pidfd], [], [], 10)[0] == [pidfd]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_fork_without_flags_shares_all() -> None:
    pid, _ = namespaces.fork_into()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_each_unshare_gives_a_name_of_its_own() -> None:
    namespaces.unshare(namespaces.CLONE_NEWUTS)
    process.sethostname("first")
    first = os.open("/proc/self/ns/uts", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWUTS)
    process.sethostname("second")
    process.setdomainname("example.test")
    assert os.uname().nodename == "second"
    assert Path("/proc/sys/kernel/domainname").read_text() == "example.test\n"
    namespaces.setns(first, namespaces.CLONE_NEWUTS)
    assert os.uname().nodename == "first"


def test_several_namespaces_are_joined_by_one_pidfd() -> None:
    flags = namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWNET
    waiting, release = os.pipe()
    pid, pidfd = namespaces.fork_into(flags)
    if pid == 0:
        os.close(release)
        os.read(waiting, 1)
        os._exit(0)
    namespaces.setns(pidfd, flags)
    assert {k: v for k, v in _identity(pid).items() if v != _identity()[k]} == {}
    os.close(release)
    os.waitpid(pid, 0)


def test_the_namespace_above_is_found() -> None:
    own = namespaces.open_namespace("self", "user")
    ours, theirs = os.pipe()
    child, pidfd = namespaces.fork_into(namespaces.CLONE_NEWUSER)
    if child == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    inner = namespaces.open_namespace(child, "user")
    above = namespaces.parent_namespace(inner)
    assert os.fstat(above).st_ino == os.fstat(own).st_ino
    os.close(theirs)
    reap(pidfd)
    for fd in (ours, own, inner, above, pidfd):
        os.close(fd)
