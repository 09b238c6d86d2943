"""pytest-xdist: workers run hermetic tests, and outlive those that die."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_xdist]

MIXED = """
    import os, time
    import pytest

    @pytest.fixture(scope="session")
    def where(tmp_path_factory):
        return tmp_path_factory.mktemp("shared")

    def test_passes(where, worker_id):
        assert worker_id.startswith("gw") or worker_id == "master"
        (where / "file").write_text("written")

    def test_fails(tmp_path):
        print("output of the failure")
        assert tmp_path.exists() and not "on purpose"

    def test_skipped():
        pytest.skip("said so")

    @pytest.mark.parametrize("number", range(5))
    def test_many(number):
        pass
"""

DEADLY = """
    import os, signal

    def test_1(): pass
    def test_2(): os.kill(os.getpid(), signal.SIGKILL)
    def test_3(): pass
"""


def _by_test(outcomes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return sorted(outcomes)


@pytest.mark.parametrize("scope", ["--hermetic", "--hermetic=function"])
def test_two_workers_by_file(project: Project, scope: str) -> None:
    project.write(**{f"test_{name}": MIXED for name in "abcd"})
    plain = project.run("+xdist", "-n2", "--dist=loadfile")
    run = project.run("+xdist", "-n2", "--dist=loadfile", scope)
    assert _by_test(run.outcomes()) == _by_test(plain.outcomes())
    assert run.summary == plain.summary
    assert run.ret == plain.ret == pytest.ExitCode.TESTS_FAILED
    assert run.text.count("\noutput of the failure\n") == 4


def test_a_test_that_dies_does_not_take_its_worker_along(project: Project) -> None:
    project.write(test_a=DEADLY, test_b=DEADLY)
    run = project.run("+xdist", "-n2", "--dist=loadfile", "--hermetic=function")
    assert run.summary == "2 failed, 4 passed in Ns"
    assert "SIGKILL" in run.failure("test_a.py::test_2")
    assert "crashed" not in run.text.replace("SIGKILL", "")
    assert "replacing" not in run.text
