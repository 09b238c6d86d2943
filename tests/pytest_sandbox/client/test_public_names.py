from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import pytest_sandbox


def test_every_public_name_is_there() -> None:
    for name in pytest_sandbox.__all__:
        assert getattr(pytest_sandbox, name) is not None
    assert set(pytest_sandbox.__all__) <= set(dir(pytest_sandbox))


def test_every_error_is_public() -> None:
    errors = import_module("pytest_sandbox.errors")
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert classes <= set(pytest_sandbox.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        pytest_sandbox.nope  # noqa: B018


def test_the_import_loads_nothing() -> None:
    script = (
        "import __future__, sys, typing; before = set(sys.modules)\n"
        "import pytest_sandbox\n"
        "print(set(sys.modules) - before)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "{'pytest_sandbox'}\n"


def test_the_client_loads_no_http_library() -> None:
    script = (
        "import sys; from pytest_sandbox import connect\n"
        "print({'requests', 'urllib3', 'http.client', 'aiohttp', 'asyncio', 'filelock'} "
        "& set(sys.modules))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
