"""The process that sees connections: it ends with pytest, and its own end is said."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.linux.pidfd import pidfd_open

pytestmark = pytest.mark.needs_userns


def _watchers_of(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes() if name.isdigit() else b""
            stat = Path(f"/proc/{name}/stat").read_text() if b"escapes.watcher" in line else ""
        except OSError:
            continue
        if stat and int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(name))
    return found


def test_it_ends_when_pytest_is_killed(hermetic: pytest.Pytester) -> None:
    hermetic.makepyfile("import time\ndef test_waits(): print(flush=True); time.sleep(100)")
    command = [sys.executable, "-m", "pytest", "-s", "--hermetic", "--hermetic-report=observe"]
    with subprocess.Popen(command, cwd=hermetic.path, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line == "\n" and (watchers := _watchers_of(run.pid)):
                break
        (watcher,) = watchers
        held = pidfd_open(watcher)
        run.kill()
        assert select.select([held], [], [], 20)[0]
        os.close(held)


def test_its_own_end_is_said_and_tests_go_on(hermetic: pytest.Pytester) -> None:
    hermetic.makepyfile(
        """
        import os, pathlib, signal

        def test_before(): pass
        def test_after():
            pathlib.Path("/tmp/loose").write_text("x")
        """
    )
    hermetic.makeconftest(
        f"""
        import os, signal, sys
        import pytest
        sys.path.insert(0, {str(Path(__file__).parents[4])!r})
        from tests.pytest_sandbox.hermetic.escapes.test_watcher import _watchers_of

        def pytest_runtest_logreport(report):
            if report.nodeid.endswith("test_before") and report.when == "teardown":
                (watcher,) = _watchers_of(os.getpid())
                os.kill(watcher, signal.SIGKILL)
                os.waitid(os.P_PID, watcher, os.WEXITED | os.WNOWAIT)
        """
    )
    result = hermetic.runpytest_subprocess("--hermetic", "--hermetic-report=observe")
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*connections and names are no longer seen: *",
            "test_*::test_after",
            "  writes      created /tmp/loose",
        ]
    )
