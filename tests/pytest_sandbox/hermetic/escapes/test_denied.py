"""Where user namespaces are denied: Landlock and a fork, said once; or a refusal, if asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_DENYING = """
import errno, os, sys
from sandboxd.linux import process, seccomp
from sandboxd.linux.syscall_numbers import NUMBERS

numbers = NUMBERS[os.uname().machine]
filter_ = seccomp.Program()
filter_.load(seccomp.NUMBER_OFFSET)
filter_.branch(seccomp.EQUAL, numbers["clone3"], "unknown")
filter_.one_of((numbers["unshare"], numbers["clone"]), "look", "allow")
filter_.mark("look")
filter_.load(seccomp.low_word(0))
filter_.branch(seccomp.ANY_BIT, 0x10000000, "refuse")
filter_.mark("allow")
filter_.ret(seccomp.RET_ALLOW)
filter_.mark("refuse")
filter_.ret(seccomp.ret_errno(errno.EPERM))
filter_.mark("unknown")
filter_.ret(seccomp.ret_errno(errno.ENOSYS))
process.set_no_new_privs()
seccomp.PreparedFilter(filter_.assemble()).install()
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""
"""As Docker's default filter for containers does."""


def _run(hermetic: pytest.Pytester, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _DENYING, "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=hermetic.path, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


TESTS = """
    import os, pathlib, socket, tempfile
    import pytest

    MARK = pathlib.Path({mark!r})

    def test_writes_are_refused(tmp_path):
        (tmp_path / "here").write_text("x")
        tempfile.NamedTemporaryFile().close()
        pathlib.Path.home().joinpath(".cache").mkdir()
        for path in (MARK, pathlib.Path("here.txt"), pathlib.Path("/tmp/never-made-by-a-test")):
            with pytest.raises(PermissionError):
                path.write_text("x")

    def test_a_fork_of_its_own():
        os.environ["LEAKED"] = "1"
        assert os.getpid() != int(os.environ["OUTER"])

    def test_the_next_one():
        assert "LEAKED" not in os.environ

    def test_dies():
        os.abort()

    @pytest.fixture(scope="module")
    def server():
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()

    def test_tcp(server):
        with pytest.raises(PermissionError):
            socket.create_connection(server)

    @pytest.mark.hermetic(network="host")
    def test_network_of_the_host(server):
        socket.create_connection(server).close()
"""


@pytest.mark.needs_landlock
def test_forks_under_landlock(
    hermetic: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandboxd.linux import landlock

    mark = tmp_path / "mark"
    monkeypatch.setenv("OUTER", "0")
    hermetic.makepyfile(TESTS.format(mark=str(mark)))
    code, output = _run(hermetic, "--hermetic=function", "--hermetic-report=observe")
    assert code == 1, output
    expected = "1 failed, 5 passed" if landlock.confined().tcp else "2 failed, 4 passed"
    assert expected in output
    assert "SIGABRT" in output
    assert output.count("hermetic: no sandboxes here") == 1
    assert "by Landlock" in output
    assert not mark.exists()
    assert not (hermetic.path / "here.txt").exists()


def test_a_run_that_requires_sandboxes_is_refused(hermetic: pytest.Pytester) -> None:
    hermetic.makepyfile("def test_never_runs(): assert 0")
    code, output = _run(hermetic, "--hermetic", "--hermetic-require=full")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "--hermetic-require=full: enter a user namespace" in output
    assert "sandboxctl doctor" in output
    assert "test_never_runs" not in output
