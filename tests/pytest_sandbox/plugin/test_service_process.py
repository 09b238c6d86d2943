"""How a process ended that is not a child of ours."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_sandbox.service_process import ServiceProcess, signal_name

DETACHED = """
import os, sys
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
sys.stdin.read()
os._exit(7)
"""


@contextmanager
def detached() -> Iterator[tuple[ServiceProcess, subprocess.Popen[str]]]:
    """Somebody else's child, which ends with exit code 7 when its input does."""
    command = [sys.executable, "-c", DETACHED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process = ServiceProcess(int(parent.stdout.readline()))
        try:
            yield process, parent
        finally:
            process.close()


def ended(process: ServiceProcess) -> None:
    select.select([process._fd], [], [], 10)
    assert process.ended()


def test_a_running_process_has_not_ended() -> None:
    with detached() as (process, _):
        assert not process.ended()
        assert process.exit_code() is None


def test_the_exit_code_of_a_process_that_is_no_child() -> None:
    with detached() as (process, parent):
        assert parent.stdin is not None
        parent.stdin.close()
        ended(process)
        assert process.exit_code() == 7


def test_the_signal_of_a_process_that_is_no_child() -> None:
    with detached() as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        ended(process)
        assert process.exit_code() == -signal.SIGKILL


def test_a_reaped_child_keeps_its_exit_code() -> None:
    child = subprocess.Popen(["true"])
    process = ServiceProcess(child.pid)
    child.wait()
    code = process.exit_code()
    process.close()
    if code is None:
        pytest.skip("the kernel has no PIDFD_INFO_EXIT (Linux 6.15)")
    assert code == 0


def test_a_process_that_is_gone() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError):
        ServiceProcess(child.pid)


def test_signal_names() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(120) == ""
