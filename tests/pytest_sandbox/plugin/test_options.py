"""Each setting from the command line, the ini file and the environment, in this order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox.options import SETTINGS, Options, options_of

Resolve = Callable[..., Options]


@pytest.fixture
def resolve(inner: pytest.Pytester) -> Resolve:
    """The options of a run with these arguments, in this directory."""
    return lambda *args: options_of(inner.parseconfig(*args))


def test_defaults(resolve: Resolve) -> None:
    assert resolve() == Options(None, (), "host", 30.0, 50, (), False, None, False, True, False)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("host", ["unix:///a", "unix:///b", "unix:///c"], ["unix:///a", "unix:///b", "unix:///c"]),
        ("image", ["a", "b c", "d"], [("a",), ("b", "c"), ("d",)]),
        ("container_image", ["a", "b", "c"], ["a", "b", "c"]),
        ("postgres", ["17", "15.2", "9"], ["17", "15.2", "9"]),
        ("timeout", ["1", "2", "0.5"], [1.0, 2.0, 0.5]),
        ("log_lines", ["0", "2", "3"], [0, 2, 3]),
    ],
)
def test_precedence(
    inner: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    resolve: Resolve,
    name: str,
    given: list[str],
    expected: list[object],
) -> None:
    on_line, in_ini, in_environment = given
    monkeypatch.setenv(f"SANDBOX_{name.upper()}", in_environment)
    assert getattr(resolve(), name) == expected[2]
    inner.makeini(f"[pytest]\nsandbox_{name} = {in_ini}")
    assert getattr(resolve(), name) == expected[1]
    flag = f"--sandbox-{name.replace('_', '-')}={on_line}"
    assert getattr(resolve(flag), name) == expected[0]


def test_shown_paths_add_up(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, resolve: Resolve
) -> None:
    monkeypatch.setenv("SANDBOX_SHOW", "/a:/b")
    inner.makeini("[pytest]\nsandbox_show = tools /b")
    assert resolve("--sandbox-show=/c", "--sandbox-show=d").show == (
        Path("/c"),
        Path.cwd() / "d",
        inner.path / "tools",
        Path("/b"),
        Path("/a"),
    )


@pytest.mark.parametrize(
    ("environment", "ini", "flags", "expected"),
    [
        ("", "", [], False),
        ("1", "", [], True),
        ("1", "false", [], False),
        ("", "false", ["--sandbox-skip-unavailable"], True),
    ],
)
def test_the_switch(
    inner: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    resolve: Resolve,
    environment: str,
    ini: str,
    flags: list[str],
    expected: bool,
) -> None:
    monkeypatch.setenv("SANDBOX_SKIP_UNAVAILABLE", environment)
    if ini:
        inner.makeini(f"[pytest]\nsandbox_skip_unavailable = {ini}")
    assert resolve(*flags).skip_unavailable is expected


@pytest.mark.parametrize(
    "flag",
    [
        "--sandbox-host=tcp://localhost:1",
        "--sandbox-image=",
        "--sandbox-container-image=",
        "--sandbox-postgres=17rc1",
        "--sandbox-timeout=soon",
        "--sandbox-timeout=0",
        "--sandbox-timeout=nan",
        "--sandbox-log-lines=-1",
    ],
)
def test_an_unusable_value_names_its_source(inner: pytest.Pytester, flag: str) -> None:
    result = inner.runpytest_subprocess(flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {flag}: *"])


def test_an_unusable_variable_names_its_source(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_LOG_LINES", "many")
    result = inner.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: SANDBOX_LOG_LINES=many: *"])


def test_every_help_is_a_capitalised_phrase() -> None:
    for setting in SETTINGS:
        assert setting.help[0].isupper()
        assert not setting.help.endswith(".")
