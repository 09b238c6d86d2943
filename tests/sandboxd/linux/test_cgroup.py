"""Control groups: limits as files, and real groups where this machine gives us some."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.linux import cgroup
from sandboxd.linux.cgroup import Group, Subtree
from sandboxd.linux.cgroup_limits import settings

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    memory: int = 0
    memory_swap: int = 0
    pids: int = 0
    cpu_quota: int = 0
    cpu_period: int = 100_000
    cpu_shares: int = 0


def _files(limits: Limits, version: int) -> dict[str, str]:
    return {each.file: each.value for each in settings(limits, version)}


@pytest.mark.parametrize(
    ("limits", "version_1", "version_2"),
    [
        (Limits(), {}, {}),
        (
            Limits(memory=64 * MIB),
            {
                "memory.limit_in_bytes": str(64 * MIB),
                "memory.memsw.limit_in_bytes": str(128 * MIB),
            },
            {"memory.max": str(64 * MIB), "memory.swap.max": str(64 * MIB)},
        ),
        (
            Limits(memory=64 * MIB, memory_swap=64 * MIB),
            {
                "memory.limit_in_bytes": str(64 * MIB),
                "memory.memsw.limit_in_bytes": str(64 * MIB),
            },
            {"memory.max": str(64 * MIB), "memory.swap.max": "0"},
        ),
        (
            Limits(memory=64 * MIB, memory_swap=-1),
            {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": str(64 * MIB), "memory.swap.max": "max"},
        ),
        (Limits(pids=7), {"pids.max": "7"}, {"pids.max": "7"}),
        (
            Limits(cpu_quota=50_000),
            {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
            {"cpu.max": "50000 100000"},
        ),
        (Limits(cpu_shares=1024), {"cpu.shares": "1024"}, {"cpu.weight": "39"}),
        (Limits(cpu_shares=1), {"cpu.shares": "1"}, {"cpu.weight": "1"}),
        (Limits(cpu_shares=1 << 30), {"cpu.shares": str(1 << 30)}, {"cpu.weight": "10000"}),
    ],
)
def test_limits_as_files(
    limits: Limits, version_1: dict[str, str], version_2: dict[str, str]
) -> None:
    assert _files(limits, 1) == version_1
    assert _files(limits, 2) == version_2


def test_a_subtree_says_what_it_misses() -> None:
    subtree = Subtree(2, {"pids": "/nowhere"})
    assert subtree.missing(Limits(pids=1)) == ()
    assert subtree.missing(Limits(memory=1, pids=1, cpu_quota=1, cpu_shares=1)) == ("memory", "cpu")


@pytest.fixture
def subtree() -> Iterator[Subtree]:
    found = cgroup.claim(f"sandboxd-test-{os.getpid()}")
    assert found is not None
    yield found
    found.remove()
    assert not any(Path(directory).exists() for directory in found.controllers.values())


def _child(body: bytes = b"") -> tuple[int, int]:
    """A child that waits for a byte, then runs Python `body` and exits 0; its pid and the pipe."""
    waiting, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        os.read(waiting, 1)
        try:
            exec(body)
        finally:
            os._exit(0)
    os.close(waiting)
    return pid, release


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.needs_cgroup
def test_memory_that_is_not_there_ends_in_a_kill_that_is_counted(subtree: Subtree) -> None:
    group = subtree.create("hungry", Limits(memory=32 * MIB, memory_swap=32 * MIB))
    pid, release = _child(b"bytearray(256 << 20)")
    group.attach(pid)
    assert group.processes() == (pid,)
    assert group.oom_kills() == 0
    os.close(release)
    assert _status(pid) == -signal.SIGKILL
    assert group.oom_kills() == 1
    group.remove()


@pytest.mark.needs_cgroup
def test_no_more_processes_than_allowed(subtree: Subtree) -> None:
    group = subtree.create("forks", Limits(pids=2))
    body = b"import os, signal\nif os.fork() == 0: signal.pause()\nos.fork()"
    pid, release = _child(body + b"\nos._exit(3)")
    group.attach(pid)
    os.close(release)
    assert _status(pid) == 0, "the second fork did not raise"
    group.kill()
    _gone(group)


@pytest.mark.needs_cgroup
def test_kill_reaches_every_process(subtree: Subtree) -> None:
    group = subtree.create("crowd", Limits(pids=50))
    reading, writing = os.pipe()
    body = b"import os, signal\nfor _ in range(5): os.fork()\nsignal.pause()"
    pid, release = _child(body)
    group.attach(pid)
    os.close(writing)
    os.close(release)
    group.kill()
    assert os.read(reading, 1) == b""
    assert _status(pid) == -signal.SIGKILL
    _gone(group)


def _gone(group: Group) -> None:
    """A killed process leaves its group a moment after the kill."""
    while group.processes():
        os.sched_yield()
    group.remove()


@pytest.mark.needs_cgroup
def test_the_limits_are_really_written(subtree: Subtree) -> None:
    limits = Limits(memory=32 * MIB, pids=7, cpu_quota=20_000, cpu_period=50_000)
    group = subtree.create("written", limits)
    for setting in settings(limits, subtree.version):
        path = Path(subtree.controllers[setting.controller], "written", setting.file)
        if path.exists() or not setting.optional:
            assert path.read_text().strip() == setting.value
    group.remove()


@pytest.mark.needs_cgroup
def test_a_limit_that_the_kernel_rejects_leaves_nothing(subtree: Subtree) -> None:
    with pytest.raises(OSError, match="cpu") as caught:
        subtree.create("broken", Limits(pids=3, cpu_quota=1))
    assert caught.value.errno == errno.EINVAL
    assert not any(Path(place, "broken").exists() for place in subtree.controllers.values())


@pytest.mark.needs_cgroup
def test_a_name_is_taken_once(subtree: Subtree) -> None:
    group = subtree.create("same", Limits(pids=3))
    with pytest.raises(FileExistsError):
        subtree.create("same", Limits(pids=3))
    assert all(Path(directory).exists() for directory in group.directories)
    group.remove()
    group.remove()


@pytest.mark.needs_cgroup
def test_claiming_again_sweeps_what_a_killed_service_left(subtree: Subtree) -> None:
    left = subtree.create("left", Limits(pids=3, memory=32 * MIB))
    pid, release = _child(b"import signal; signal.pause()")
    left.attach(pid)
    name = os.path.basename(next(iter(subtree.controllers.values())))
    again = cgroup.claim(name)
    assert again == subtree
    assert _status(pid) == -signal.SIGKILL
    os.close(release)
    subtree.sweep()
    assert not any(Path(directory).exists() for directory in left.directories)


@pytest.mark.needs_root
def test_the_unified_hierarchy_makes_room_for_a_subtree() -> None:
    """With whatever controller version 2 has here: its rules are the same for all of them."""
    unified = cgroup._own_directories("cgroup2")
    if not unified:
        pytest.skip("no unified hierarchy")
    controllers = Path(unified[0], "cgroup.controllers").read_text().split()
    if not controllers:
        pytest.skip("version 1 has all controllers")
    pid, release = _child()
    subtree = cgroup.claim(f"sandboxd-test-{os.getpid()}", controllers[:1])
    assert subtree is not None
    assert subtree.version == 2
    group = Group((f"{subtree.controllers[controllers[0]]}/group",))
    os.mkdir(group.directories[0])
    group.attach(pid)
    with pytest.raises(OSError, match="busy"):
        group.remove()
    group.kill()
    assert _status(pid) == -signal.SIGKILL
    os.close(release)
    subtree.remove()


@pytest.mark.needs_ordinary_user
def test_nothing_of_ours_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if cgroup.writable(("memory",)):
        pytest.skip("this user has a delegated subtree")
    assert cgroup.claim("sandboxd-test") is None
