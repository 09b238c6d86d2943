"""The doctor on this machine: what it says, its exit status, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.doctor import run_checks
from sandboxd.doctor.probes import attempt

_COMMAND = [sys.executable, "-m", "sandboxd", "doctor"]


@pytest.mark.needs_userns
def test_here_containers_can_run(tmp_path: Path) -> None:
    environ = {**os.environ, "SANDBOX_ROOT": str(tmp_path / "state")}
    done = subprocess.run([*_COMMAND, "--json"], env=environ, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], done.stderr) == (0, True, "")
    assert {*document["checks"][0]} == {"name", "ok", "required", "detail", "mend"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_userns
def test_lines_for_a_reader() -> None:
    done = subprocess.run(_COMMAND, capture_output=True, text=True)
    assert done.returncode == 0
    assert "ok      kernel" in done.stdout
    assert done.stdout.endswith("containers can run\n")


def test_where_namespaces_are_refused_the_command_is_given() -> None:
    """Under the filter of a container: what Docker's own default does to this service."""
    filtered = (
        "import os, sys; from sandboxd.launcher import profile; from sandboxd.linux import process;"
        "process.set_no_new_privs();"
        "profile.prepared_filter(frozenset(profile.DEFAULT_CAPABILITIES)).install();"
        "os.execv(sys.executable, [sys.executable, '-m', 'sandboxd', 'doctor', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", filtered], capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (1, False)
    mends = {check["name"]: check["mend"] for check in document["checks"] if not check["ok"]}
    assert "--security-opt seccomp=unconfined" in mends["user namespaces"]
    assert "--security-opt seccomp=unconfined" in mends["outer seccomp"]


@pytest.mark.needs_userns
def test_this_process_stays_as_it_is() -> None:
    def state() -> tuple[object, ...]:
        spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid", "net")]
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        mounts = [line for line in table if " probe " in line or "sandboxd-doctor" in line]
        cgroups = Path("/proc/self/cgroup").read_text()
        return os.getuid(), spaces, mounts, cgroups, sorted(os.listdir("/proc/self/fd"))

    before = state()
    assert all(check.ok or not check.required for check in run_checks())
    assert state() == before


def test_a_probe_that_raises_is_an_answer() -> None:
    def refused() -> str:
        raise PermissionError(1, "mount x: Operation not permitted")

    def broken() -> str:
        raise ValueError("odd")

    assert attempt(refused) == (False, "mount x: Operation not permitted", 1)
    assert attempt(broken) == (False, "ValueError: odd", 0)
    assert attempt(lambda: "words") == (True, "words", 0)


def test_a_probe_that_dies_is_an_answer() -> None:
    def dying() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    assert attempt(dying) == (False, "the probe ended with status -9", 0)
