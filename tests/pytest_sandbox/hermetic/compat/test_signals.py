"""Tests that die: the run goes on, and the failure says how, with the last output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project, Run

pytestmark = pytest.mark.needs_userns

DEATHS = """
    import ctypes, os, signal, sys
    import pytest

    @pytest.fixture(autouse=True)
    def before():
        print("said in set-up")

    def test_segv():
        print("before SIGSEGV", flush=True)
        ctypes.string_at(0)

    def test_kill():
        print("before SIGKILL")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def test_term():
        os.write(2, b"before SIGTERM\\n")
        os.kill(os.getpid(), signal.SIGTERM)

    def test_abort():
        os.abort()

    def test_exits_badly():
        os._exit(3)

    def test_exits_well():
        os._exit(0)

    def test_passes():
        pass

    @pytest.fixture
    def dies_in_teardown():
        yield
        os.kill(os.getpid(), signal.SIGKILL)

    def test_teardown(dies_in_teardown):
        pass

    @pytest.fixture
    def dies_in_setup():
        os.abort()

    def test_setup(dies_in_setup):
        pass

    def test_after_all_that():
        pass
"""

EXPECTED = """
    import os, signal
    import pytest

    @pytest.mark.xfail(reason="known to crash")
    def test_expected():
        os.abort()

    @pytest.mark.xfail(reason="known to crash", strict=True)
    def test_strict():
        os.kill(os.getpid(), signal.SIGSEGV)

    @pytest.mark.xfail(raises=ValueError, reason="another failure")
    def test_of_another_kind():
        os.abort()

    @pytest.mark.xfail(False, reason="not here")
    def test_condition_does_not_hold():
        os.abort()

    def test_passes():
        pass
"""


@pytest.fixture(params=["--hermetic", "--hermetic=function"])
def deaths(project: Project, request: pytest.FixtureRequest) -> Run:
    project.write(test_deaths=DEATHS)
    return project.run("-v", request.param)


def test_a_death_is_a_failure_with_the_signals_name_and_the_output(deaths: Run) -> None:
    for name, signal in (
        ("segv", "SIGSEGV"),
        ("kill", "SIGKILL"),
        ("term", "SIGTERM"),
        ("abort", "SIGABRT"),
    ):
        assert signal in deaths.failure(f"::test_{name}")
        assert "said in set-up" in deaths.failure(f"::test_{name}")
    for name in ("SIGSEGV", "SIGKILL", "SIGTERM"):
        assert f"before {name}" in deaths.text
    assert "status 3" in deaths.failure("::test_exits_badly")
    assert "status 0" in deaths.failure("::test_exits_well")
    assert "SIGKILL" in deaths.failure("::test_teardown")
    assert "SIGABRT" in deaths.failure("::test_setup")
    passed = [name for name, when, how in deaths.outcomes() if (when, how) == ("call", "passed")]
    assert [name.rpartition("::")[2] for name in passed] == [
        "test_passes",
        "test_teardown",
        "test_after_all_that",
    ]
    assert deaths.ret == pytest.ExitCode.TESTS_FAILED
    assert len(deaths.cases()) == 10


def test_a_crash_that_was_expected_is_an_xfail(project: Project) -> None:
    project.write(test_expected=EXPECTED)
    run = project.run("-rA", "--hermetic=function")
    assert run.summary == "2 failed, 1 passed, 2 xfailed in Ns"
    assert "SIGABRT" in run.failure("test_of_another_kind")
    assert "SIGABRT" in run.failure("test_condition_does_not_hold")
