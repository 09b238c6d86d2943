"""`sandboxctl … | head -1`: the reader hangs up, and the command ends as others do."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.cli.conftest import Sandboxctl


def _without_reader(sandboxctl: Sandboxctl, *args: str) -> tuple[int, bytes]:
    """Exit status, and standard error, of a command whose output nobody reads from the start."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        sandboxctl.command(*args), env=sandboxctl.environ, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    _, complaints = process.communicate(timeout=60)
    return process.returncode, complaints


@pytest.mark.needs_userns
@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "run --help",
        "images",
        "env",
        "service status",
        "inspect host",
        "run --rm host yes",
    ],
)
def test_it_ends_by_sigpipe_and_says_nothing(sandboxctl: Sandboxctl, command: str) -> None:
    assert _without_reader(sandboxctl, *command.split()) == (-signal.SIGPIPE, b"")


@pytest.mark.needs_userns
def test_a_shell_sees_its_usual_status_and_the_container_is_gone(sandboxctl: Sandboxctl) -> None:
    command = ["run", "--rm", "--name", "hung-up", "host", "seq", "10000000"]
    script = '"$@" | head -1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *sandboxctl.command(*command)],
        env=sandboxctl.environ,
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"1\n141\n", b"")
    assert "hung-up" not in sandboxctl.ok("ps", "-a")
