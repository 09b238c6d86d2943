"""Interrupts, ends and terminals: a command in a container is one to tox like any other."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.tox.conftest import Project

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_tox,
    pytest.mark.needs_system_python,
]

PYTHON = ["python", "-u", "-c"]
WAIT = """
import time
print('up')
try:
    time.sleep(100)
except KeyboardInterrupt:
    print('interrupted')
    raise SystemExit(5)
"""


@contextmanager
def started(project: Project, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A tox whose output has come to the line `up`."""
    with subprocess.Popen(
        project.command(*args),
        cwd=project.path,
        env=dict(project.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.strip() == "up":
                break
        else:
            pytest.fail("".join(seen))
        yield process


def test_an_interrupt_reaches_the_command_and_leaves_nothing(project: Project) -> None:
    post = [*PYTHON, "print('after')"]
    project.configure(
        a={
            "commands": [[*PYTHON, WAIT], [*PYTHON, "print('next')"]],
            "commands_post": [post],
            "interrupt_post_commands": True,
            "interrupt_timeout": 30,
        }
    )
    with started(project, "run") as process:
        (container,) = project.client.containers()
        assert container.inspect()["Config"]["Labels"]["tox"] == "a"
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = process.stdout.read()
    assert "interrupted" in said
    assert "after" in said
    assert "next" not in said
    assert process.returncode != 0
    assert project.client.containers(all=True) == []


def test_a_command_that_ignores_the_interrupt_is_killed(project: Project) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(100)"
    )
    project.configure(
        a={
            "commands": [[*PYTHON, stubborn]],
            "interrupt_timeout": 0.05,
            "terminate_timeout": 0.05,
        }
    )
    with started(project, "run") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "SIGKILL" in process.stdout.read()
    assert process.returncode != 0
    assert project.client.containers(all=True) == []


def test_a_tox_that_is_killed_leaves_nothing(project: Project) -> None:
    project.configure(a={"commands": [[*PYTHON, WAIT]]})
    with started(project, "run") as process:
        (container,) = project.client.containers()
        with project.client.events(filters={"event": ["destroy"]}) as events:
            process.kill()
            assert next(events)["Actor"]["ID"] == container.id
    assert project.client.containers(all=True) == []


def test_a_terminal_is_one_inside_too(project: Project) -> None:
    script = "import sys; print('terminal', sys.stdout.isatty()); print('read', input())"
    project.configure(a={"commands": [[*PYTHON, script]]})
    assert "terminal False" in project.tox(code=1)
    main, side = pty.openpty()
    with subprocess.Popen(
        project.command("run"), cwd=project.path, env=dict(project.environ),
        stdin=side, stdout=side, stderr=side, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(side)
        said = b""
        while b"terminal True" not in said:
            said += os.read(main, 4096)
        os.write(main, b"typed\n")
        try:
            while piece := os.read(main, 4096):
                said += piece
        except OSError:
            pass  # EIO: the last one has closed the other side
        os.close(main)
    assert b"read typed" in said
    assert process.returncode == 0
