"""A debugger at a terminal: --pdb and breakpoint() talk to whoever sits there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

DEBUGGED = """
    import os

    def test_stops_here():
        secret = 6 * 7
        print("captured before")
        breakpoint()
        secret += 1
        assert secret == 43

    def test_fails():
        value = "the value"
        assert value == "another"

    def test_after():
        pass
"""

_PROMPT = b"(Pdb) "


class Terminal:
    """pytest on a pseudo terminal of its own, whose foreground process group it is."""

    def __init__(self, project: Project, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            # setsid --ctty makes the pseudo terminal the session's own.
            ["setsid", "--ctty", "--wait", *project.command(*args)],
            cwd=project.path,
            env={**project.environ, "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.said = b""

    def until(self, text: bytes) -> str:
        """Read up to `text` and return what came before it, and `text`."""
        while text not in self.said:
            self._read()
        end = self.said.index(text) + len(text)
        head, self.said = self.said[:end], self.said[end:]
        return head.decode(errors="replace")

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def _read(self) -> None:
        assert select.select([self.master], [], [], 30)[0], self.said.decode(errors="replace")
        try:
            self.said += os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            raise EOFError(self.said.decode(errors="replace")) from None

    def rest(self) -> str:
        """All that is said up to the end of the run."""
        try:
            while True:
                self._read()
        except EOFError:
            return self.said.decode(errors="replace")


@pytest.fixture(params=["--hermetic", "--hermetic=function"])
def terminal(project: Project, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    project.write(test_debugged=DEBUGGED)
    running = Terminal(project, "--pdb", request.param)
    yield running
    os.close(running.master)
    running.process.kill()
    running.process.wait()


def test_breakpoint_and_pdb_are_used_at_the_terminal(terminal: Terminal) -> None:
    assert "secret += 1" in terminal.until(_PROMPT)
    terminal.type("p 'secret is', secret")
    assert "('secret is', 42)" in terminal.until(_PROMPT)
    terminal.type("next")
    terminal.until(_PROMPT)
    terminal.type("p secret")
    assert "43" in terminal.until(_PROMPT)
    terminal.type("continue")
    assert "entering PDB" in terminal.until(_PROMPT)
    terminal.type("p value")
    assert "'the value'" in terminal.until(_PROMPT)
    terminal.type("continue")
    assert "1 failed, 2 passed" in terminal.rest()
    assert terminal.process.wait() == pytest.ExitCode.TESTS_FAILED


def test_quitting_the_debugger_ends_the_run(terminal: Terminal) -> None:
    terminal.until(_PROMPT)
    terminal.type("quit")
    assert "Exit: Quitting debugger" in terminal.rest()
    assert terminal.process.wait() == pytest.ExitCode.INTERRUPTED
