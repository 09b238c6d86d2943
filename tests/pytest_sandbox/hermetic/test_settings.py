"""Who is in one sandbox with whom: option, ini file and marker, and their precedence."""

from __future__ import annotations

import os
import re

import pytest

pytestmark = pytest.mark.needs_userns

NUMBERED = """
import os, sys

def number():
    sys.number_of_process = int.from_bytes(os.urandom(6))

number()
os.register_at_fork(after_in_child=number)
"""

MODULE = """
import pytest, sys

@pytest.fixture(autouse=True)
def told(request, capfd):
    with capfd.disabled():
        print(f"\\n{request.node.name} in {sys.number_of_process}")

def test_a(): pass
def test_b(): pass
class TestC:
    def test_c(self): pass
    def test_d(self): pass
class TestE:
    def test_e(self): pass
    def test_f(self): pass
"""

MARKED = MODULE.replace("class TestC", "@pytest.mark.hermetic(scope='class')\nclass TestC").replace(
    "def test_b", "@pytest.mark.hermetic\ndef test_b"
)
EXEMPT = MODULE.replace("def test_b", "@pytest.mark.hermetic(scope='none')\ndef test_b")


def _groups(result: pytest.RunResult) -> list[str]:
    """The tests of each process, as their last letters, in order."""
    found: dict[str, str] = {}
    for name, number in re.findall(r"(?m)^test_(\w) in (\d+)$", result.stdout.str()):
        found[number] = found.get(number, "") + name
    return list(found.values())


@pytest.mark.parametrize(
    ("options", "ini", "groups"),
    [
        (["--hermetic"], "", ["abcdef", "abcdef"]),
        (["--hermetic=function"], "", list("abcdefabcdef")),
        (["--hermetic=class"], "", ["a", "b", "cd", "ef", "a", "b", "cd", "ef"]),
        (["--hermetic=session"], "true", ["abcdefabcdef"]),
        ([], "module", ["abcdef", "abcdef"]),
    ],
)
def test_scopes(hermetic: pytest.Pytester, options: list[str], ini: str, groups: list[str]) -> None:
    """The path after `--hermetic` is a path, not its value."""
    hermetic.makeconftest(NUMBERED)
    hermetic.makepyfile(test_one=MODULE, test_two=MODULE)
    if ini:
        options = [*options, "-o", f"sandbox_hermetic={ini}"]
    result = hermetic.runpytest_subprocess(*options, "test_one.py", "test_two.py")
    result.assert_outcomes(passed=12)
    assert _groups(result) == groups


def test_markers_win(hermetic: pytest.Pytester) -> None:
    """Without an option only what is marked is hermetic; with one the marker wins."""
    hermetic.makeconftest(NUMBERED)
    hermetic.makepyfile(MARKED)
    result = hermetic.runpytest_subprocess("--strict-markers")
    result.assert_outcomes(passed=6)
    assert sorted(_groups(result)) == ["aef", "b", "cd"]
    result = hermetic.runpytest_subprocess("--hermetic")
    result.assert_outcomes(passed=6)
    assert _groups(result)[:3] == ["a", "b", "cd"]
    assert _groups(result)[3] == "ef"
    hermetic.makepyfile(EXEMPT)
    hermetic.runpytest_subprocess("--hermetic", "test_markers_win.py").assert_outcomes(passed=6)
    result = hermetic.runpytest_subprocess("--hermetic=none", "test_markers_win.py")
    assert _groups(result) == ["abcdef"]


@pytest.mark.parametrize(
    ("marker", "why"),
    [
        ("hermetic('function')", "keyword arguments only"),
        ("hermetic(scop='class')", "no argument 'scop'"),
        ("hermetic(scope='package')", "scope='package' is none of function, class"),
        ("hermetic(paths='/etc')", "paths='/etc' is no list of paths"),
        ("hermetic(network='bridge')", "network='bridge' is none of loopback, host"),
        ("hermetic(env={'A': 1})", "no mapping of strings to strings"),
        ("hermetic(reuse='no')", "reuse='no' is neither True nor False"),
    ],
)
def test_a_bad_marker_is_refused_by_name(marker: str, why: str) -> None:
    from pytest_sandbox.hermetic.settings import check_marker

    mark: pytest.MarkDecorator = eval(f"pytest.mark.{marker}", {"pytest": pytest})
    with pytest.raises(ValueError, match=re.escape(why)):
        check_marker(mark.mark)


def test_unusable_settings_name_their_source(hermetic: pytest.Pytester) -> None:
    hermetic.makepyfile("import pytest\n@pytest.mark.hermetic(scop=1)\ndef test_a(): pass")
    result = hermetic.runpytest_subprocess("-o", "sandbox_hermetic=package")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: sandbox_hermetic=package: it is none of true, false*"])
    result = hermetic.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *.py::test_a: hermetic: no argument 'scop'*"])
    result = hermetic.runpytest_subprocess("--hermetic=package")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--hermetic*'package'*"])


ASKED = """
import os, pathlib, socket, sys, pytest

ELSEWHERE = pathlib.Path(os.environ["ELSEWHERE"])

def test_all_shows():
    assert os.listdir("/var/lib")
    assert not ELSEWHERE.exists()  # it is below /tmp
    assert "SECRET" in os.environ

@pytest.mark.hermetic(paths=[ELSEWHERE / "a", ELSEWHERE / "b" / "file", "beside"])
def test_declared_paths_only():
    assert (ELSEWHERE / "a" / "file").read_text() == "a"
    (ELSEWHERE / "a" / "file").write_text("changed")
    assert (ELSEWHERE / "b" / "file").read_text() == "b"
    assert os.listdir(ELSEWHERE / "b") == ["file"]
    assert not (ELSEWHERE / "c").exists()
    assert pathlib.Path(__file__).exists()
    import json, decimal, sqlite3
    assert pathlib.Path("/etc/passwd").exists()
    assert os.listdir("/srv") == os.listdir("/mnt") == []

@pytest.mark.hermetic(paths=[])
def test_nothing_declared():
    assert not ELSEWHERE.exists() and not os.path.exists("/var/lib")

@pytest.mark.hermetic(env={"SECRET": "set", "MORE": "1"})
def test_variables_are_set():
    assert os.environ["SECRET"] == "set" and os.environ["MORE"] == "1"

@pytest.mark.hermetic(env=["LANG"])
def test_variables_are_kept():
    assert "SECRET" not in os.environ and "PATH" in os.environ and "HOME" in os.environ

@pytest.mark.hermetic(network="host")
def test_network_of_the_host():
    assert os.stat("/proc/self/ns/net").st_ino == int(os.environ["NET"])
    assert os.stat("/proc/self/ns/ipc").st_ino != int(os.environ["IPC"])

def test_and_all_is_as_before():
    assert os.listdir("/var/lib")
    assert "MORE" not in os.environ and os.environ["SECRET"] == "s"
"""


def test_paths_environment_and_network(
    hermetic: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = hermetic.path.parent / "elsewhere"
    for name in "abc":
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "file").write_text(name)
    (elsewhere / "b" / "other").write_text("")
    monkeypatch.setenv("ELSEWHERE", str(elsewhere))
    monkeypatch.setenv("SECRET", "s")
    for name in ("net", "ipc"):
        monkeypatch.setenv(name.upper(), str(os.stat(f"/proc/self/ns/{name}").st_ino))
    hermetic.makepyfile(ASKED)
    result = hermetic.runpytest_subprocess("--hermetic=function")
    result.assert_outcomes(passed=7, failed=0)
    assert (elsewhere / "a" / "file").read_text() == "a"
