"""Inner pytest runs, each a process of its own, against a service or against none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs without any setting of the outer run."""
    for name in ("HOST", "IMAGE", "TIMEOUT", "LOG_LINES", "SHOW", "SKIP_UNAVAILABLE"):
        monkeypatch.delenv(f"SANDBOX_{name}", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(INI)
    return pytester


@pytest.fixture
def untouched(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a socket where no service is: it must not appear during the run."""
    directory = inner.path / "run"
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{directory}/docker.sock")
    monkeypatch.setenv("SANDBOX_ROOT", str(inner.path / "state"))
    return directory
