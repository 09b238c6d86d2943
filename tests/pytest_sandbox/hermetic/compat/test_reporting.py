"""JUnit files, the report log, durations, logging: what describes a run is complete."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.pytest_sandbox.hermetic.compat.inner_runs import assert_same

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

PROPERTIES = """
    import pytest

    @pytest.fixture(scope="session", autouse=True)
    def about_the_run(record_testsuite_property):
        record_testsuite_property("revision", "abc123")

    def test_property(record_property):
        record_property("ticket", 42)

    def test_suite_property(record_testsuite_property):
        record_testsuite_property("from a test", ["arbitrary", "value"])

    def test_attribute(record_xml_attribute):
        record_xml_attribute("assertions", "REQ-1")

    def test_fails(record_property):
        record_property("seen", "before it failed")
        assert 0

    @pytest.fixture
    def broken():
        raise RuntimeError("in set-up")

    def test_error(broken):
        pass

    def test_skipped():
        pytest.skip("no reason")
"""

LOGGING = """
    import logging
    import pytest

    log = logging.getLogger("inner")

    @pytest.fixture
    def logged():
        log.info("set up")
        yield
        log.info("torn down")

    def test_first(logged):
        log.info("first")

    def test_second(logged, caplog):
        log.debug("too low")
        log.error("second")
        assert caplog.records[-1].getMessage() == "second"
"""

SLEEPS = """
    import time
    import pytest

    @pytest.fixture
    def slow():
        time.sleep(0.03)

    def test_slow(slow):
        time.sleep(0.02)

    def test_quick():
        pass
"""


def test_properties_reach_the_junit_file(project: Project) -> None:
    project.write(test_properties=PROPERTIES)
    runs = [project.run("-o", "junit_family=xunit1", *mode) for mode in ((), ("--hermetic",))]
    assert_same(*runs)
    for run in runs:
        assert run.junit is not None
        found = {p.get("name"): p.get("value") for p in run.junit.findall("*/properties/property")}
        assert found == {"revision": "abc123", "from a test": "['arbitrary', 'value']"}
        [attribute] = run.cases("test_attribute")
        assert attribute[1]["assertions"] == "REQ-1"


def test_the_report_log_holds_every_report(project: Project) -> None:
    project.write(test_properties=PROPERTIES, test_logging=LOGGING)
    run = project.same("-rA", "--log-level=INFO")
    assert len(run.reports()) == 8 * 3 - 1
    assert run.log[-1] == {"exitstatus": 1, "$report_type": "SessionFinish"}


def test_live_logs_and_log_files_are_written(project: Project) -> None:
    project.write(test_logging=LOGGING)
    file = project.path / "run.log"
    options = (f"--log-file={file}", "--log-file-level=INFO", "--log-file-format=%(message)s")
    written = {}
    for mode in ((), ("--hermetic",), ("--hermetic=function",)):
        run = project.run("--log-cli-level=INFO", "--log-cli-format=%(message)s", *options, *mode)
        assert run.ret == 0
        # How far the letters stand to the right depends on what else was written to the line.
        written[mode] = re.sub(" +", " ", run.text), file.read_text()
    assert written[("--hermetic",)] == written[()]
    assert written[("--hermetic=function",)] == written[()]
    assert "live log teardown" in written[()][0]
    assert "torn down" in written[()][1]


def test_durations_are_those_of_the_tests(project: Project) -> None:
    project.write(test_sleeps=SLEEPS)
    run = project.run("--durations=2", "--durations-min=0.01", "--hermetic=function")
    listed = [line.split()[1:] for line in run.text.splitlines() if line.startswith("Ns ")]
    assert listed == [
        ["setup", "test_sleeps.py::test_slow"],
        ["call", "test_sleeps.py::test_slow"],
    ]
