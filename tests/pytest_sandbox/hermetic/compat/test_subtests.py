"""Subtests, pytest's own and unittest's: status, text and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="pytest has subtests since 9.0"),
]

SUBTESTS = """
    import pytest

    def test_one_fails(subtests):
        for i in ("0", "1", "2"):
            with subtests.test("custom message", i=i, pair=("a", 1)):
                print(f"output of {i}")
                assert i != "1"

    def test_all_pass(subtests):
        for i in range(3):
            with subtests.test(i=i):
                pass

    def test_skipped_and_expected(subtests):
        with subtests.test("skips"):
            pytest.skip("not here")
        with subtests.test("expected"):
            pytest.xfail("known")

    def test_itself_fails_too(subtests):
        with subtests.test("first"):
            assert 0, "in the subtest"
        assert 0, "in the test"
"""

UNITTEST = """
    import unittest

    class TestOld(unittest.TestCase):
        def test_sub(self):
            for i in range(3):
                with self.subTest("message", i=str(i)):
                    self.assertNotEqual(i, 2)
"""


def test_subtests_are_reported_as_in_a_plain_run(project: Project) -> None:
    project.write(test_sub=SUBTESTS)
    run = project.same("-rA", "-v")
    assert "contains 1 failed subtest" in run.text
    assert "\"'1" not in run.text


def test_a_failed_subtest_stops_the_run(project: Project) -> None:
    project.write(test_sub=SUBTESTS)
    project.same("-x")


def test_subtests_of_unittest(project: Project) -> None:
    """In a plain run their lines on the terminal are lost in the test's captured output."""
    project.write(test_old=UNITTEST)
    plain = project.run()
    for scope in ("--hermetic", "--hermetic=function"):
        run = project.run(scope)
        assert run.outcomes() == plain.outcomes()
        assert run.summary == plain.summary
        assert run.ret == plain.ret
