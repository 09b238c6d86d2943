from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def running(sandboxctl: Sandboxctl, busybox: str) -> Iterator[str]:
    script = "echo out; echo err >&2; exec sleep 60"
    command = ("run", "-d", "--name", "running", "-l", "a=b", busybox, "sh", "-c", script)
    sandboxctl.ok(*command)
    yield "running"
    if ids := sandboxctl.ok("ps", "-aq").split():
        sandboxctl.ok("rm", "-f", *ids)


def test_ps(sandboxctl: Sandboxctl, running: str) -> None:
    header, row = sandboxctl.ok("ps").splitlines()
    assert header.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS NAMES".split()
    assert row.endswith("running")
    for column in ("IMAGE", "COMMAND", "STATUS"):
        assert row[header.index(column) - 1] == " "
        assert row[header.index(column)] != " "
    assert '"sh -c' in row
    assert len(row.split()[0]) == 12


def test_ps_in_other_shapes(sandboxctl: Sandboxctl, running: str) -> None:
    [full] = json.loads(sandboxctl.ok("ps", "--json"))
    assert sandboxctl.ok("ps", "-q").strip() == full["Id"][:12]
    assert sandboxctl.ok("ps", "-q", "--no-trunc").strip() == full["Id"]
    template = r"{{.Names}}\t{{ .State }} {{.Labels}}"
    assert sandboxctl.ok("ps", "--format", template) == "running\trunning a=b\n"
    done = sandboxctl("ps", "--format", "{{.Nope}}")
    assert (done.returncode, b"no field Nope" in done.stderr) == (2, True)


def test_ps_shows_what_has_ended_on_demand(sandboxctl: Sandboxctl, running: str) -> None:
    assert sandboxctl.ok("stop", "-t", "0", running) == "running\n"
    assert sandboxctl.ok("ps", "-q") == ""
    assert "Exited (137)" in sandboxctl.ok("ps", "-a")


def test_logs(sandboxctl: Sandboxctl, running: str) -> None:
    sandboxctl.ok("kill", running)
    done = sandboxctl("logs", running)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
    assert sandboxctl("logs", "-n", "0", running).stdout == b""
    assert sandboxctl("logs", "-t", running).stdout.split()[0].endswith(b"Z")


def test_logs_as_they_come(sandboxctl: Sandboxctl, running: str) -> None:
    process = sandboxctl.start("logs", "-f", running)
    assert process.stdout is not None
    assert process.stdout.readline() == b"out\n"
    sandboxctl.ok("kill", running)
    process.communicate()
    assert process.returncode == 0


def test_an_interrupted_follow_leaves_the_container(sandboxctl: Sandboxctl, running: str) -> None:
    import signal

    process = sandboxctl.start("logs", "-f", running)
    assert process.stdout is not None
    assert process.stdout.readline() == b"out\n"
    process.send_signal(signal.SIGINT)
    assert b"Traceback" not in process.communicate()[1]
    assert process.returncode == 130
    assert sandboxctl.ok("ps", "-q") != ""


def test_kill_and_wait(sandboxctl: Sandboxctl, running: str) -> None:
    process = sandboxctl.start("wait", running)
    assert sandboxctl.ok("kill", "-s", "KILL", running) == "running\n"
    assert process.communicate() == (b"137\n", b"")
    done = sandboxctl("kill", running)
    assert (done.returncode, b"is not running" in done.stderr) == (1, True)


def test_rename(sandboxctl: Sandboxctl, running: str) -> None:
    sandboxctl.ok("rename", running, "renamed")
    assert sandboxctl.ok("ps", "--format", "{{.Names}}") == "renamed\n"


def test_rm_of_what_runs_and_of_nothing(sandboxctl: Sandboxctl, running: str) -> None:
    done = sandboxctl("rm", "nope", running)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0] == "sandboxctl: No such container: nope"
    assert "container is running" in done.stderr.decode()
    assert sandboxctl.ok("rm", "-f", "nope", running) == "running\n"


def test_inspect(sandboxctl: Sandboxctl, running: str, busybox: str) -> None:
    sandboxctl.ok("volume", "create", "looked-at")
    container, image, volume = json.loads(sandboxctl.ok("inspect", running, busybox, "looked-at"))
    assert container["Name"] == "/running"
    assert busybox in image["RepoTags"]
    assert volume["Name"] == "looked-at"
    sandboxctl.ok("volume", "rm", "looked-at")
    done = sandboxctl("inspect", "nope")
    assert (done.returncode, done.stderr) == (1, b"sandboxctl: No such object: nope\n")


def test_inspect_mounts(sandboxctl: Sandboxctl, running: str) -> None:
    assert "proc on /proc" in sandboxctl.ok("inspect", "--mounts", running)
