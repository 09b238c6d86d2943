"""What a test, or whoever stops the run, leaves behind: nothing; and it is said."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

LEFTOVERS = """
    import os, subprocess, sys

    def test_leaves_a_process():
        subprocess.Popen(["sleep", "1234.5"], start_new_session=True)

    def test_does_not_see_it():
        commands = set()
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    commands.add(open(f"/proc/{name}/cmdline", "rb").read())
                except OSError:
                    pass
        assert not any(b"1234.5" in command for command in commands)
"""

THREADS = """
    import threading
    import pytest

    stop = threading.Event()

    def pytest_configure(config):
        threading.Thread(target=stop.wait, name="the-poller", daemon=True).start()

    def pytest_unconfigure(config):
        stop.set()
"""

SOCKETS = """
    import socket
    import pytest

    def pytest_configure(config):
        config.listener = socket.create_server(("127.0.0.1", 0))
        config.client = socket.create_connection(config.listener.getsockname())
        config.served, _ = config.listener.accept()

    def pytest_unconfigure(config):
        for each in (config.client, config.served, config.listener):
            each.close()
"""

TWO = """
    def test_1(): pass
    def test_2(): pass
"""

WAITS = """
    import os, signal

    def test_passes():
        pass

    def test_waits():
        os.write(1, b"waiting\\n")
        signal.pause()

    def test_never():
        pass
"""


_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_PATIENCE_MS = 10_000


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@pytest.fixture
def orphans() -> Iterator[set[int]]:
    """Whatever loses its parent during the test becomes a child of this process.

    At the end of the test those have to be gone, or to go by themselves. Yields those from before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    before = _children()
    yield before
    left = []
    while found := _children() - before:
        pid = found.pop()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        pidfd = os.pidfd_open(pid)
        if not select.select([pidfd], [], [], _PATIENCE_MS / 1000)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            left.append(command)
        os.close(pidfd)
        os.waitpid(pid, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert not left


@pytest.mark.parametrize("scope", ["--hermetic", "--hermetic=function"])
def test_a_leftover_process_is_killed_and_reported(
    project: Project, scope: str, orphans: set[int]
) -> None:
    project.write(test_left=LEFTOVERS)
    run = project.run("-v", scope)
    # Its arguments, too, unless it is just about to get them.
    [told] = [
        warning["message"] for warning in run.warnings() if "left a process" in warning["message"]
    ]
    assert ": sleep" in told
    if scope == "--hermetic=function":
        assert run.ret == 0


def test_threads_of_the_parent_are_named_once(project: Project) -> None:
    project.write(conftest=THREADS, test_a=TWO, test_b=TWO)
    run = project.run("--hermetic=function")
    assert run.ret == 0
    told = [w for w in run.warnings() if "the-poller" in w["message"]]
    assert len(told) == 1, run.text
    assert "DeprecationWarning" not in run.text


def test_connected_sockets_of_the_parent_are_listed(project: Project) -> None:
    project.write(conftest=SOCKETS, test_a=TWO, test_b=TWO)
    run = project.run("--hermetic=function")
    assert run.ret == 0
    [told] = [w["message"] for w in run.warnings() if "socket" in w["message"]]
    assert told.count("127.0.0.1:") >= 2


def test_a_quiet_parent_gets_no_warning(project: Project) -> None:
    project.write(test_a=TWO)
    project.ini("filterwarnings = error")
    assert project.same().ret == 0


@pytest.mark.parametrize("scope", ["--hermetic", "--hermetic=function"])
@pytest.mark.parametrize("to_all", [False, True], ids=["pytest alone", "as by a terminal"])
def test_an_interrupt_leaves_nothing(
    project: Project, scope: str, to_all: bool, orphans: set[int]
) -> None:
    project.write(test_waits=WAITS)
    process = subprocess.Popen(
        project.command("-s", scope),
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, b"")
    assert any(b"waiting" in line for line in lines)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    rest = process.stdout.read().decode()
    assert process.wait(timeout=30) == pytest.ExitCode.INTERRUPTED, rest
    process.stdout.close()
    assert "KeyboardInterrupt" in rest
    assert "1 passed" in rest
    assert not [path for path in project.tmp.iterdir() if not path.name.startswith("pytest-of-")]
