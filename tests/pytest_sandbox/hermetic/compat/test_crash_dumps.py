"""faulthandler: its dumps reach the terminal, and its timeout runs in the child."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

CRASHES = """
    import faulthandler, ctypes

    def test_enabled():
        assert faulthandler.is_enabled()

    def test_crashes_here():
        ctypes.string_at(0)
"""

SLEEPS = """
    import time

    def test_takes_long():
        time.sleep(0.3)

    def test_quick():
        pass
"""


def test_a_crash_is_dumped(project: Project) -> None:
    project.write(test_crashes=CRASHES)
    run = project.run("--hermetic")
    assert run.summary == "1 failed, 1 passed in Ns"
    assert "Fatal Python error: Segmentation fault" in run.errors + run.text
    assert "in test_crashes_here" in run.errors + run.text


def test_faulthandler_timeout_dumps_and_goes_on(project: Project) -> None:
    project.write(test_sleeps=SLEEPS)
    run = project.run("-o", "faulthandler_timeout=0.1", "--hermetic")
    assert run.summary == "2 passed in Ns"
    assert run.errors.count("Timeout (") == 1
    assert "in test_takes_long" in run.errors
