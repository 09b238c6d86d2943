"""A run that uses no container pays next to nothing, and the service hears nothing of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

LIST_MODULES = """
import sys

def pytest_unconfigure():
    loaded = sys.modules.keys() & {"requests", "sandboxd", "aiohttp", "pytest_sandbox.client"}
    print("loaded:", sorted(loaded))
"""

USES_EVERYTHING = """
import pytest
from pytest_sandbox import container, volume
from sandbox_fixtures import postgres

site = volume(files={"a": b"b"})
web = container("host", ["true"], volumes={"/site": "site"}, scope="module")
pg = postgres(load=["select 1"])

@pytest.mark.sandbox(env={"A": "b"}, timeout=3)
def test_it(sandbox, web, pg, postgres):
    pass
"""


def test_an_unused_plugin_loads_neither_client_nor_service(inner: pytest.Pytester) -> None:
    inner.makeconftest(LIST_MODULES)
    inner.makepyfile("def test_nothing(): pass")
    result = inner.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded: []*"])


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--help", "--markers"])
def test_looking_at_tests_touches_no_service(
    inner: pytest.Pytester, untouched: Path, option: str
) -> None:
    inner.makeconftest(LIST_MODULES.replace('"sandboxd", ', ""))
    inner.makepyfile(USES_EVERYTHING)
    result = inner.runpytest_subprocess(option)
    assert result.ret == 0
    assert not untouched.exists()
    assert not (inner.path / "state").exists()


def test_fixtures_are_explained(inner: pytest.Pytester, untouched: Path) -> None:
    inner.makepyfile(USES_EVERYTHING)
    result = inner.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(
        [
            "sandbox [[]session scope[]]*",
            "*A client of the sandbox service*",
            "postgres -- *",
            "*PostgreSQL of the test's own*",
            "web [[]module scope[]]*",
            "*A container of host: true*",
        ]
    )


def test_the_marker_is_registered_and_explained(inner: pytest.Pytester) -> None:
    inner.makepyfile(USES_EVERYTHING)
    assert inner.runpytest_subprocess("--strict-markers", "--collect-only", "-q").ret == 0
    inner.runpytest_subprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.sandbox(*env=None*"]
    )


def test_the_header_is_one_line_and_only_looks(inner: pytest.Pytester, untouched: Path) -> None:
    result = inner.runpytest_subprocess()
    lines = [line for line in result.outlines if line.startswith("sandbox: ")]
    assert lines == [f"sandbox: unix://{untouched}/docker.sock (not started)"]
    assert not untouched.exists()


def test_the_header_does_not_connect(inner: pytest.Pytester, untouched: Path) -> None:
    untouched.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{untouched}/docker.sock")
        listener.listen()
        result = inner.runpytest_subprocess()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    result.stdout.fnmatch_lines(["sandbox: * (socket present)"])


def test_the_header_says_where_sandboxctl_looks(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_sandbox.plugin import default_host
    from sandboxd.paths import socket_path

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_host() == f"unix://{socket_path()}"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_host() == f"unix://{socket_path()}"


def test_it_can_be_switched_off(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_nothing(): pass")
    result = inner.runpytest_subprocess("-p", "no:sandbox", "-p", "no:sandbox_fixtures")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("sandbox: *")
