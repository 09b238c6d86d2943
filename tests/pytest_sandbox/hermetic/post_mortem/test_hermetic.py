"""A failed hermetic test's state: kept, entered, run again, and never changed by that."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_sandbox.post_mortem.shelf import Kept, Shelf

pytestmark = pytest.mark.needs_userns

TESTS = """
    import os, pathlib
    import pytest

    HERE = pathlib.Path(__file__).parent

    def test_passes():
        (HERE / "state").write_text("of the passing test")

    @pytest.mark.parametrize("word", ["a b"])
    def test_fails(word, tmp_path):
        print("words", "of the test")
        (tmp_path / "mine").write_text("x")
        pathlib.Path("/tmp/loose").write_text("x")
        (HERE / "gone").unlink()
        state = HERE / "state"
        if not state.exists():
            state.write_text("of the failed test")
            assert 0, "the first time"
        assert os.environ["WISH"] == "granted"
"""


@pytest.fixture
def project(hermetic: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """With a shelf of its own; its module test_it.py has a test that fails the first time only."""
    monkeypatch.setenv("SANDBOX_ROOT", str(hermetic.path.parent / "root"))
    monkeypatch.setenv("WISH", "granted")
    (hermetic.path / "gone").write_text("as it was")
    hermetic.makepyfile(test_it=TESTS)
    return hermetic


def _kept() -> list[Kept]:
    return Shelf(Path(os.environ["SANDBOX_ROOT"])).kept()


def _sandboxctl(project: pytest.Pytester, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-c", "from pytest_sandbox.cli import main; main()", *words]
    done = subprocess.run(
        command,
        cwd=project.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


NODEID = "test_it.py::test_fails[a b]"


def test_a_state_is_kept_entered_and_run_again(project: pytest.Pytester) -> None:
    options = ("--hermetic=function", "-o", "console_output_style=count")
    result = project.runpytest_subprocess(*options, "test_it.py")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*- post mortem -*", f"sandboxctl shell '{NODEID}'".replace("[", "[[]")]
    )
    assert (project.path / "gone").exists()
    (kept,) = _kept()
    assert kept.state.nodeid == NODEID
    assert kept.state.environ["WISH"] == "granted"
    assert kept.state.rootdir == str(project.path)
    assert kept.state.settings["scope"] == "function"
    assert "console_output_style=count" in kept.state.options
    report = (kept.path / "report.txt").read_text()
    assert "the first time" in report
    assert "words of the test" in report

    look = "cat state; ls /tmp/loose gone; echo more >> state; test $WISH = granted && exit 3"
    for _ in range(2):
        code, output = _sandboxctl(project, "shell", NODEID, "--", "sh", "-c", look)
        assert code == 3, output
        assert output.startswith("of the failed test")
        assert "more" not in output
        assert re.search(r"gone.*No such file", output)
        assert "\n/tmp/loose\n" in output
    assert _sandboxctl(project, "shell", "test_fails[a b]", "no-such-command")[0] == 127
    assert _sandboxctl(project, "shell", NODEID, "sh", "-c", "kill -9 $$")[0] == 137

    code, output = _sandboxctl(project, "rerun", NODEID, "--", "-v")
    assert code == 1, output
    assert "FileNotFoundError" in output  # it deletes what it had deleted
    assert _sandboxctl(project, "shell", NODEID, "--", "touch", "gone")[0] == 0
    assert len(_kept()) == 1
    assert (project.path / "gone").read_text() == "as it was"
    assert not (project.path / "state").exists()

    code, output = _sandboxctl(project, "shell")
    assert code == 0
    assert NODEID in output
    code, output = _sandboxctl(project, "shell", "test_passes")
    assert code == 1
    assert "nothing is kept of test_passes" in output


def test_a_terminal_gets_a_shell(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    project.runpytest_subprocess("--hermetic", "-q", "test_it.py", "-k", "fails")
    command = [sys.executable, "-c", "from pytest_sandbox.cli import main; main()", "shell", NODEID]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.path)
        os.execv(sys.executable, command)
    os.write(terminal, b"tty; cat state; exit 5\n")
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:
        pass  # EIO: all that had it open have closed it
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5, shown
    assert b"of the failed test" in shown


def test_what_is_kept_is_bounded(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_many="""
        import pathlib, pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(number):
            assert 0

        def test_much():
            pathlib.Path("/tmp/much").write_bytes(bytes(1 << 20))
            assert 0
        """
    )
    bounds = ("-o", "sandbox_keep_count=2", "-o", "sandbox_keep_size=512k")
    result = project.runpytest_subprocess("--hermetic=function", "test_many.py", *bounds)
    result.assert_outcomes(failed=4)
    too_large = "the state is not kept: it is larger than sandbox_keep_size=524288"
    result.stdout.fnmatch_lines([too_large])
    ids = [kept.state.nodeid for kept in _kept()]
    assert ids == ["test_many.py::test_it[2]", "test_many.py::test_it[1]"]
    none = ("-o", "sandbox_keep_count=0")
    result = project.runpytest_subprocess("--hermetic", "test_many.py", *none)
    result.stdout.no_fnmatch_line("*post mortem*")
    assert len(_kept()) == 2


def test_the_dead_and_the_strict_are_kept_too(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import os, pathlib

        def test_dies():
            pathlib.Path("/tmp/last_words").write_text("x")
            os.abort()

        def test_writes():
            pathlib.Path("/tmp/loose").write_text("x")
        """
    )
    project.runpytest_subprocess("--hermetic", "--hermetic-report=strict").assert_outcomes(failed=2)
    for test, path in (("test_dies", "/tmp/last_words"), ("test_writes", "/tmp/loose")):
        assert _sandboxctl(project, "shell", test, "--", "cat", path) == (0, "x")
