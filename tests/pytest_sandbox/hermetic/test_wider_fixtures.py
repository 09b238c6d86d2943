"""Fixtures wider than the sandbox: once, in pytest's own process, and seen by every test."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.needs_userns

CONFTEST = """
import os, pytest, threading

PYTEST = os.getpid()

def say(what, request):
    request.config.get_terminal_writer().line(f"\\n<{what} in pytest: {os.getpid() == PYTEST}>")

@pytest.fixture(scope="session")
def anything(request, tmp_path_factory):
    say("session up", request)
    print("of the session")
    path = tmp_path_factory.mktemp("given")
    (path / "file").write_text("kept")
    file = open(path / "file", "r+")
    yield {"lambda": lambda: 42, "lock": threading.Lock(), "file": file, "path": path}
    file.close()
    say("session down", request)

@pytest.fixture(scope="module")
def of_module(request):
    say(f"{request.node.name} up", request)
    yield [request.node.name]
    say(f"{request.node.name} down", request)

@pytest.fixture(scope="session", params=["x", "y"])
def each(request):
    say(f"{request.param} up", request)
    yield request.param
    say(f"{request.param} down", request)

@pytest.fixture(scope="session")
def fails():
    raise RuntimeError("it cannot be had")

@pytest.fixture(scope="session")
def skips():
    pytest.skip("not here")

@pytest.fixture(scope="module")
def fails_at_the_end():
    yield
    raise RuntimeError("the end is hard")
"""

ONE = """
import os, pytest

def test_value(anything, of_module):
    assert anything["lambda"]() == 42 and anything["file"].read() == "kept"
    (anything["path"] / "file").write_text("changed")
    of_module.append("changed")

def test_not_what_a_test_made_of_it(anything, of_module, tmp_path):
    assert (anything["path"] / "file").read_text() == "kept"
    assert of_module == ["test_one.py"]
    assert str(tmp_path).startswith(str(anything["path"].parent))

def test_each(each):
    assert each in "xy"

def test_fails(fails):
    pass

def test_skips(skips):
    pass
"""

TWO = """
import os, pytest

UP = []

def setup_module():
    UP.append(os.getpid())

class TestOld:
    @classmethod
    def setup_class(cls):
        cls.up = os.getpid()

    def test_set_up_once(self, of_module):
        assert UP == [self.up] and self.up != os.getpid()

def test_its_own_module(of_module, anything):
    assert of_module == ["test_two.py"]

def test_the_end(fails_at_the_end):
    pass
"""


def _said(result: pytest.RunResult) -> list[str]:
    return re.findall(r"<(.*?)>", result.stdout.str())


def test_they_are_set_up_once_and_seen_by_all(hermetic: pytest.Pytester) -> None:
    hermetic.makeconftest(CONFTEST)
    hermetic.makepyfile(test_one=ONE, test_two=TWO)
    result = hermetic.runpytest_subprocess("--hermetic=function", "-rA")
    result.assert_outcomes(passed=7, skipped=1, errors=2)
    # What they write while they are set up is captured, and so comes later.
    assert sorted(_said(result)) == sorted(
        f"{what} in pytest: True"
        for what in (
            *("session up", "test_one.py up", "x up", "x down", "y up"),
            *("test_one.py down", "test_two.py up", "test_two.py down", "y down", "session down"),
        )
    )
    result.stdout.fnmatch_lines(
        ["*RuntimeError: it cannot be had", "*RuntimeError: the end is hard", "of the session"]
    )
    result.stdout.fnmatch_lines(
        ["*ERROR test_one.py::test_fails*", "*ERROR test_two.py::test_the*"]
    )


def test_those_of_the_sandbox_are_its_own(hermetic: pytest.Pytester) -> None:
    hermetic.makeconftest(CONFTEST)
    hermetic.makepyfile(test_one=ONE.replace('["test_one.py"]', '["test_one.py", "changed"]'))
    result = hermetic.runpytest_subprocess("--hermetic", "-k", "value or made_of", "-s")
    assert "test_one.py up in pytest: False" in _said(result)
    assert "session down in pytest: True" in _said(result)
    result = hermetic.runpytest_subprocess("--hermetic=session", "-k", "value or fails", "-s")
    assert "session up in pytest: False" in _said(result)
    result.assert_outcomes(passed=1, errors=1)


@pytest.mark.needs_xdist
def test_workers_have_theirs(hermetic: pytest.Pytester) -> None:
    hermetic.makeconftest(CONFTEST)
    hermetic.makepyfile(test_one=ONE, test_two=TWO)
    options = ("-p", "no:rerunfailures", "-n2", "--dist=loadfile", "--hermetic=function")
    result = hermetic.runpytest_subprocess(*options)
    result.assert_outcomes(passed=7, skipped=1, errors=2)


def test_hermetic_and_other_tests_take_turns(hermetic: pytest.Pytester) -> None:
    hermetic.makeconftest(CONFTEST)
    hermetic.makepyfile(
        test_one="""
        import os, pytest

        def test_a(of_module, anything):
            of_module.append("a")

        @pytest.mark.hermetic
        def test_b(of_module):
            assert of_module == ["test_one.py", "a"]
            of_module.append("b")

        @pytest.mark.hermetic(scope="module")
        def test_c(of_module):
            assert of_module == ["test_one.py"]

        def test_d(of_module, anything):
            assert of_module == ["test_one.py"]
        """,
        test_two="def test_e(anything): pass",
    )
    hermetic.runpytest_subprocess().assert_outcomes(passed=5)
