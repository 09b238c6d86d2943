"""Inner runs of hermetic tests, and what must be left of them: nothing."""

from __future__ import annotations

import os

import pytest

INI = """
[pytest]
addopts = -p no:cacheprovider
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""


@pytest.fixture
def hermetic(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Inner runs without any setting of the outer run, in a home of their own."""
    for name in [name for name in os.environ if name.startswith(("SANDBOX_", "PYTEST_", "COV_"))]:
        monkeypatch.delenv(name)
    home = pytester.path.parent / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    pytester.makeini(INI)
    return pytester
