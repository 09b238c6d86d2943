"""However a run ends, nothing of it is left: no process, no mount, no file."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.linux import pidfd

pytestmark = pytest.mark.needs_userns

WAITS = """
import os, pathlib, subprocess, sys, time

def test_quick(tmp_path):
    (tmp_path / "file").write_text("")

def test_waits(capfd):
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    with capfd.disabled():
        print("\\nIT WAITS", flush=True)
    time.sleep(300)
"""


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [
        other for child in children for other in _descendants(int(child))
    ]


@pytest.mark.parametrize("who", ["pytest", "zygote"])
def test_after_sigkill(hermetic: pytest.Pytester, who: str) -> None:
    """Of the zygote's death pytest makes a failed test, and the run ends as it should."""
    hermetic.makepyfile(WAITS)
    mounts = Path("/proc/self/mountinfo").read_text()
    command = [sys.executable, "-m", "pytest", "--hermetic=function"]
    with subprocess.Popen(command, cwd=hermetic.path, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = ""
        while "IT WAITS" not in (line := run.stdout.readline()):
            said += line
            assert line, said
        held = {pid: os.pidfd_open(pid) for pid in (run.pid, *_descendants(run.pid))}
        assert len(held) >= 5, "pytest, the maker, the zygote, a sandbox, its test"
        victim = run.pid if who == "pytest" else _zygote(run.pid)
        pidfd.pidfd_send_signal(held[victim], signal.SIGKILL)
        said += run.stdout.read()
        for fd in held.values():
            assert select.select([fd], [], [], 30)[0], "a process is left"
            os.close(fd)
    if who == "zygote":
        assert "the zygote died by SIGKILL" in said
        assert "1 failed, 1 passed" in said
    assert Path("/proc/self/mountinfo").read_text() == mounts


def _zygote(pytest_pid: int) -> int:
    """The child of pytest that runs pytest's own program."""
    own = Path(f"/proc/{pytest_pid}/cmdline").read_bytes()
    children = Path(f"/proc/{pytest_pid}/task/{pytest_pid}/children").read_text().split()
    [found] = [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == own]
    return found
