"""Coverage: the report is that of a plain run, with branches, contexts and subprocesses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_coverage]

MEASURED = """
    def sign(number):
        if number < 0:
            return -1
        if number > 0:
            return 1
        return 0

    def at_import():
        return 1

    VALUE = at_import()

    def in_a_subprocess():
        return "from a subprocess"

    def never():
        return None

    if __name__ == "__main__":
        print(in_a_subprocess())
"""

TESTS_A = """
    import pytest
    from measured import sign

    @pytest.fixture(scope="module")
    def shared():
        yield sign(0)

    def test_zero(shared):
        assert shared == 0

    def test_negative():
        assert sign(-1) == -1
"""

TESTS_B = """
    import subprocess, sys
    import measured

    def test_positive():
        assert measured.sign(1) == 1

    def test_subprocess():
        assert subprocess.run([sys.executable, "measured.py"]).returncode == 0
"""

SETTINGS = """
    [run]
    branch = true
    source = .
    omit = test_*
    patch = subprocess
"""


def _report(project: Project) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((project.path / "coverage.json").read_text())
    del report["meta"]
    found: dict[str, Any] = _sorted(report)
    return found


def _sorted(value: Any) -> Any:
    """With the names of contexts in order: the report has them in any."""
    if isinstance(value, dict):
        return {name: _sorted(each) for name, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return sorted(value)
    return value


@pytest.fixture
def measured(project: Project) -> Project:
    project.write(measured=MEASURED, test_a=TESTS_A, test_b=TESTS_B, **{".coveragerc": SETTINGS})
    return project


def _with_pytest_cov(project: Project, *args: str) -> tuple[int, str, dict[str, Any]]:
    options = ("--cov", "--cov-branch", "--cov-context=test", "--cov-report=term-missing")
    run = project.run("+cov", *options, "--cov-report=json:coverage.json", *args)
    _, _, table = run.text.partition("coverage: platform")
    return run.ret, table.partition("\n===")[0], _report(project)


@pytest.mark.needs_xdist
def test_pytest_cov_reports_what_it_does_in_a_plain_run(measured: Project) -> None:
    plain = _with_pytest_cov(measured)
    assert plain[2]["totals"]["percent_covered"] > 80
    for mode in (
        ("--hermetic",),
        ("--hermetic=function",),
        ("+xdist", "-n2", "--dist=loadfile", "--hermetic"),
    ):
        assert _with_pytest_cov(measured, *mode) == plain, mode


def test_coverage_run_reports_what_it_does_in_a_plain_run(measured: Project) -> None:
    rc = measured.path / ".coveragerc"
    rc.write_text(f"{rc.read_text()}dynamic_context = test_function\n")
    reports = []
    for mode in ((), ("--hermetic",), ("--hermetic=function",)):
        command = [sys.executable, "-m", "coverage"]
        pytest_command = measured.command(*mode)[1:]
        for arguments in (
            ["run", *pytest_command],
            ["combine"],
            ["json", "--show-contexts", "-o", "coverage.json"],
        ):
            done = subprocess.run(
                [*command, *arguments],
                cwd=measured.path,
                env=measured.environ,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        reports.append(_report(measured))
    assert reports[1] == reports[0]
    assert reports[2] == reports[0]


def test_a_killed_test_keeps_the_coverage_of_the_others(measured: Project) -> None:
    measured.write(
        test_b="""
            import os, signal
            import measured

            def test_positive():
                assert measured.sign(1) == 1

            def test_killed():
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    _, _, report = _with_pytest_cov(measured, "--hermetic=function")
    assert {2, 3, 4, 5, 6} <= set(report["files"]["measured.py"]["executed_lines"])
