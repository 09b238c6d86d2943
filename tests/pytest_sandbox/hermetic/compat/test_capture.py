"""Captured output: all four methods, the fixtures, five megabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

OUTPUT = """
    import logging, os, subprocess, sys
    import pytest

    @pytest.fixture
    def talking():
        print("set up")
        yield
        print("torn down")

    def test_talks(talking):
        print("out")
        print("err", file=sys.stderr)
        logging.getLogger("inner").warning("logged")
        assert not "fails, so that all of it is shown"

    def test_descriptors():
        os.write(1, b"written to 1\\n")
        os.write(2, b"written to 2\\n")
        subprocess.run(["echo", "from a subprocess"], check=True)
        assert not "fails as well"

    def test_capsys(capsys):
        print("for capsys")
        assert capsys.readouterr().out == "for capsys\\n"

    def test_capfd(capfd):
        subprocess.run(["echo", "for capfd"], check=True)
        assert capfd.readouterr().out == "for capfd\\n"

    def test_caplog(caplog):
        logging.getLogger("inner").warning("for caplog")
        assert [r.getMessage() for r in caplog.records] == ["for caplog"]
        assert 0, "so that caplog's section is shown"

    def test_shown_through_capture(capsys):
        with capsys.disabled():
            print("said past the capture")

    def test_passes():
        print("output of a test that passes")
"""

LONG = """
    def test_five_megabytes():
        for number in range(50_000):
            print(f"{number:0100}")
        assert not "too much"
"""


@pytest.mark.parametrize("method", ["fd", "sys"])
def test_output_is_captured_by(project: Project, method: str) -> None:
    project.write(test_output=OUTPUT)
    scopes = ("--hermetic", "--hermetic=function") if method == "fd" else ("--hermetic",)
    run = project.same("-rA", f"--capture={method}", scopes=scopes)
    assert "said past the capture" in run.text
    [report] = [r for r in run.reports("descriptors") if r["when"] == "call"]
    assert ("from a subprocess" in str(report["sections"])) == (method == "fd")


@pytest.mark.parametrize("method", ["no", "tee-sys"])
def test_output_goes_out_where_nothing_holds_it(project: Project, method: str) -> None:
    """A failure's letter comes after its teardown, as somebody may still look at its sandbox."""
    project.write(test_output=OUTPUT)
    runs = [project.run(f"--capture={method}", *mode) for mode in ((), ("--hermetic",))]
    plain, hermetic = runs
    assert sorted(hermetic.text) == sorted(plain.text)
    assert sorted(hermetic.errors) == sorted(plain.errors)
    assert hermetic.log == plain.log


def test_five_megabytes_come_whole(project: Project) -> None:
    project.write(test_long=LONG)
    run = project.same()
    [report] = [r for r in run.reports() if r["when"] == "call"]
    assert len(dict(report["sections"])["Captured stdout call"]) == 50_000 * 101
