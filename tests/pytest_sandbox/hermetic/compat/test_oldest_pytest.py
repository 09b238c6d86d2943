"""The oldest pytest that is supported, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.pytest_sandbox.hermetic.compat.inner_runs import assert_same

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_pip_index]

REPRESENTATIVE = """
    import logging, os, subprocess, unittest, warnings
    import pytest

    @pytest.fixture(scope="session")
    def everywhere(tmp_path_factory):
        return lambda: tmp_path_factory.mktemp("arbitrary")

    @pytest.fixture(scope="module", params=["a", "b"])
    def letter(request):
        yield request.param

    def test_wide(everywhere, letter):
        assert everywhere().is_dir()

    def test_fails(capsys, record_property):
        print("out")
        record_property("key", "value")
        logging.getLogger("inner").warning("logged")
        assert {"a": 1} == {"a": 2}

    @pytest.mark.xfail(strict=True)
    def test_expected():
        assert 0

    @pytest.mark.xfail(strict=True)
    def test_unexpected():
        pass

    @pytest.mark.parametrize("number", [1, 2])
    def test_parameters(number, tmp_path):
        (tmp_path / "file").write_text(str(number))

    def test_warns(recwarn):
        warnings.warn("seen")
        assert len(recwarn) == 1

    def test_warns_unseen():
        warnings.warn("not seen")

    def test_descriptors(capfd):
        subprocess.run(["echo", "x"], check=True)
        assert capfd.readouterr().out == "x\\n"

    @pytest.fixture
    def broken():
        yield
        raise RuntimeError("in tear-down")

    def test_broken(broken):
        pass

    class TestOld(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.value = 1

        def test_value(self):
            self.assertEqual(self.value, 1)

        def test_skipped(self):
            self.skipTest("said so")
"""

DIES = """
    import os, signal

    def test_dies():
        print("before", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    def test_after():
        pass
"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with pytest 8.2 first, and all that this one has behind it."""
    place = tmp_path_factory.mktemp("oldest")
    python = f"{place}/bin/python"
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(place)],
        [sys.executable, "-m", "pip", f"--python={python}", "install", "-q", "pytest==8.2.*"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=100)
    [site] = place.glob("lib/python*/site-packages")
    behind = sysconfig.get_path("purelib")
    (site / "behind.pth").write_text(f"import site; site.addsitedir({behind!r})\n")
    return python


def test_a_representative_suite(project: Project, oldest: str) -> None:
    project.write(test_all=REPRESENTATIVE)
    plain = project.run("-rA", python=oldest)
    assert "pytest-8.2" in plain.text
    for scope in ("--hermetic", "--hermetic=function"):
        assert_same(plain, project.run("-rA", scope, python=oldest))


def test_deaths(project: Project, oldest: str) -> None:
    project.write(test_dies=DIES)
    run = project.run("--hermetic=function", python=oldest)
    assert run.summary == "1 failed, 1 passed in Ns"
    assert "SIGSEGV" in run.failure("test_dies.py::test_dies")


@pytest.mark.needs_xdist
@pytest.mark.needs_coverage
def test_workers_and_coverage(project: Project, oldest: str) -> None:
    project.write(test_a=REPRESENTATIVE, test_b=REPRESENTATIVE)
    options = ("+xdist", "+cov", "-n2", "--dist=loadfile", "--cov=.", "--cov-report=term")
    plain = project.run(*options, python=oldest)
    run = project.run(*options, "--hermetic", python=oldest)
    assert sorted(run.outcomes()) == sorted(plain.outcomes())
    total = [line for line in plain.text.splitlines() if line.startswith("TOTAL")]
    assert total
    assert [line for line in run.text.splitlines() if line.startswith("TOTAL")] == total
