"""Tests inside images: the whole suite by `--sandbox-image`, one test by its marker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_sandbox import connect
from pytest_sandbox.matrix.matrix import with_suffix, without_suffix
from pytest_sandbox.python_images import python_image

if TYPE_CHECKING:
    from pytest_sandbox import Client
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_xdist]

BARE = "bare-python:1"
"""This machine's interpreter without any package."""

SUITE = """
import os, socket, sys
import pytest

IMAGE = os.environ["SANDBOX_TEST_IMAGE"]

@pytest.mark.parametrize("number", [1, 2])
def test_writes(number, tmp_path):
    open("written", "x" if number == 1 else "a").close()
    (tmp_path / "file").touch()
    assert os.getuid() == 0

def test_has_loopback_only():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]

def test_differs():
    assert IMAGE == "host"

def test_dies():
    if IMAGE == "bare-python:1":
        os._exit(3)
"""

MARKED = """
import os
import pytest

ups = []

@pytest.fixture(scope="module")
def shared(request):
    ups.append(1)
    return request.config.getoption("--mine")

def test_here(shared):
    assert "SANDBOX_TEST_IMAGE" not in os.environ

@pytest.mark.sandbox(image="bare-python:1")
class TestThere:
    def test_it(self, shared):
        assert (os.environ["SANDBOX_TEST_IMAGE"], shared) == ("bare-python:1", "given")

    def test_fails(self, shared):
        print("said before")
        assert len(ups) == 2

    def test_dies(self):
        os._exit(3)

    def test_after(self):
        pass

@pytest.mark.sandbox(image="busybox")
def test_without_python():
    pass

def test_here_again(shared):
    assert len(ups) == 1
"""


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False, lease=False) as client:
        yield client


@pytest.fixture
def bare(client: Client, tmp_path: Path) -> str:
    """An empty virtual environment on the interpreter of ours, which `host` shows."""
    interpreter = os.path.realpath(sys.executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(interpreter)
    settings = f"home = {os.path.dirname(interpreter)}\ninclude-system-site-packages = false\n"
    (tmp_path / "pyvenv.cfg").write_text(settings)
    text = "FROM host\nCOPY . /opt/bare/\nENV PATH=/opt/bare/bin:/usr/bin:/bin\n"
    (tmp_path / "Dockerfile").write_text(text)
    client.build(tmp_path, tag=BARE)
    return BARE


def test_every_test_runs_once_in_every_image(live: pytest.Pytester, bare: str) -> None:
    live.makepyfile(test_suite=SUITE)
    images = ("--sandbox-image=host", f"--sandbox-image={bare}")
    result = live.runpytest_subprocess(*images, "--junitxml=junit.xml", "-rf")
    result.assert_outcomes(passed=8, failed=2)
    result.stdout.fnmatch_lines(
        [
            "sandbox: tests run in host, bare-python:1 (1 worker each)",
            "*replacing crashed worker gw1",
            "*100%]",
            "host           Python 3.*  5 passed  *",
            "bare-python:1  Python 3.*  3 passed, 2 failed  *",
            "FAILED test_suite.py::test_differs?bare-python:1? - *",
            "FAILED test_suite.py::test_dies?bare-python:1?*",
        ]
    )
    cases = ElementTree.parse(live.path / "junit.xml").iter("testcase")
    told = {case.attrib["name"]: [each.attrib for each in case.iter("property")] for case in cases}
    assert len(told) == 10
    assert told["test_writes[2-host]"] == [{"name": "sandbox_image", "value": "host"}]
    assert not (live.path / "written").exists()
    covered = ["--cov=test_suite"] if find_spec("pytest_cov") else []
    again = live.runpytest_subprocess(*images, "--lf", "-k", "differs", *covered)
    again.assert_outcomes(passed=1, failed=1)
    if covered:
        # Whole but for the bodies of three tests.
        again.stdout.re_match_lines([r"test_suite\.py +15 +6 +60%"])


@pytest.mark.needs_busybox
def test_a_marked_test_runs_in_its_image(live: pytest.Pytester, bare: str, busybox: str) -> None:
    live.makeconftest("def pytest_addoption(parser): parser.addoption('--mine')")
    live.makepyfile(test_suite=MARKED)
    result = live.runpytest_subprocess("--mine=given", "--junitxml=junit.xml", "-rA")
    result.assert_outcomes(passed=4, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "run tests in the image busybox: it has no Python (to mend it: *sandboxctl image*",
            ">*assert len(ups) == 2",
            "said before",
            "the process that ran the test has ended (exit code 3): the image bare-python:1",
        ]
    )
    cases = ElementTree.parse(live.path / "junit.xml").iter("testcase")
    images = {case.attrib["name"]: [each.attrib["value"] for each in case.iter("property")]
              for case in cases}  # fmt: skip
    assert images["test_it"] == ["bare-python:1"]
    assert images["test_here"] == []
    hermetic = live.runpytest_subprocess("--mine=given", "--hermetic", "-k", "test_it or again")
    hermetic.assert_outcomes(passed=2)


@pytest.mark.needs_home_python
def test_an_image_of_another_python_brings_its_own_pytest(
    home_python: str, live: pytest.Pytester, client: Client, tmp_path: Path
) -> None:
    base = python_image(client, home_python).reference
    live.makepyfile(
        test_suite=f"""
        import sys
        import pytest

        @pytest.mark.sandbox(image="other:1")
        def test_it():
            assert sys.version_info[:2] == {tuple(map(int, home_python.split(".")))}
            assert "pytest_sandbox" not in sys.modules
        """
    )
    live.makefile(".ini", pytest="[pytest]\nsandbox_timeout = 60")
    flags = ("--strict-markers", "--strict-config")
    if home_python != f"{sys.version_info[0]}.{sys.version_info[1]}":
        result = live.runpytest_subprocess(f"--sandbox-image={base}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(
            [f"ERROR: sandbox: run tests in the image {base}: its Python *"]
        )
    for name in ("_pytest", "pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(os.path.dirname(spec.origin), tmp_path / "packages" / name)
    known = distribution("pluggy")
    info = f"pluggy-{known.version}.dist-info"
    shutil.copytree(str(known.locate_file(info)), tmp_path / "packages" / info)
    (tmp_path / "packages" / "py.py").write_text("import _pytest._py.path as path\n")
    dockerfile = f"FROM {base}\nCOPY packages /packages\nENV PYTHONPATH=/packages\n"
    (tmp_path / "Dockerfile").write_text(dockerfile)
    client.build(tmp_path, tag="other:1")
    live.runpytest_subprocess(*flags).assert_outcomes(passed=1)
    result = live.runpytest_subprocess("--sandbox-image=other:1", *flags)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"other:1  Python {home_python}.*  1 passed  *"])


def test_nothing_is_left_when_pytest_is_killed(live: pytest.Pytester, client: Client) -> None:
    live.makepyfile("import time\ndef test_it(): time.sleep(1000)")
    with client.events(until=time.time() + 60, filters={"type": ["container"]}) as events:
        command = [sys.executable, "-m", "pytest", "--sandbox-image=host"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=live.path) as run:
            started = next(each for each in events if each["Action"].startswith("exec_start"))
            run.send_signal(signal.SIGKILL)
        gone = {"Action": "destroy", "ID": started["Actor"]["ID"]}
        assert gone in ({"Action": each["Action"], "ID": each["Actor"]["ID"]} for each in events)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["-p", "no:xdist"], "--sandbox-image: the suite runs in workers of pytest-xdist, *"),
        (["--pdb"], "--sandbox-image: --pdb cannot reach a container*"),
        (["-p", "no:randomly"], "sandbox: No such image: no-such-image:1*"),
    ],
)
def test_what_cannot_be(live: pytest.Pytester, flags: list[str], complaint: str) -> None:
    live.makepyfile("def test_it(): pass")
    result = live.runpytest_subprocess("--sandbox-image=no-such-image:1", *flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {complaint}"])


def test_a_name_with_an_image_and_without() -> None:
    images = ("python:3.12", "r.invalid/a-b:1")
    for name in ("a.py::b", "a.py::b[1]", "a.py::C::b[x-y]"):
        for image in images:
            assert without_suffix(with_suffix(name, image), images) == name
        assert without_suffix(name, images) == name
