"""Stopping early and choosing by the last run: the parent decides, on what the children said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.pytest_sandbox.hermetic.compat.inner_runs import assert_same

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

FAILURES = """
    import pytest

    def test_1(): pass
    def test_2(): assert 0
    def test_3(): pass

    @pytest.fixture(scope="module")
    def to_be_torn_down():
        yield

    def test_4(to_be_torn_down): assert 0
    def test_5(): assert 0
    def test_6(): pass
"""

STOPS_ITSELF = """
    import pytest

    def test_1(request):
        request.session.shouldstop = "the test wants it"

    def test_2(): pass
"""

EXITS = """
    import pytest

    def test_1(): pass
    def test_2(): pytest.exit("enough", returncode=7)
    def test_3(): pass
"""


@pytest.mark.parametrize(("option", "failures"), [("-x", 1), ("--maxfail=2", 2)])
def test_the_run_stops_after(project: Project, option: str, failures: int) -> None:
    project.write(test_a=FAILURES, test_b=FAILURES)
    run = project.same(option)
    assert len([r for r in run.reports() if r["outcome"] == "failed"]) == failures


def test_last_failed_first_failed_and_stepwise(project: Project) -> None:
    project.write(test_a=FAILURES)
    told = {}
    for mode in ((), ("--hermetic",), ("--hermetic=function",)):
        project.run("--cache-clear", *mode)
        told[mode] = [
            project.run(*options.split(), *mode)
            for options in ("--lf -x", "--ff", "--sw", "--sw --sw-skip")
        ]
    for runs in told.values():
        for plain, hermetic in zip(told[()], runs, strict=True):
            assert_same(plain, hermetic)
    assert [len(run.outcomes()) // 3 for run in told[()]] == [1, 6, 2, 3]


def test_a_test_that_stops_the_session(project: Project) -> None:
    project.write(test_stops=STOPS_ITSELF)
    assert project.same().ret == pytest.ExitCode.INTERRUPTED


def test_pytest_exit_ends_the_run(project: Project) -> None:
    project.write(test_exits=EXITS)
    assert project.same().ret == 7
