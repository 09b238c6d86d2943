"""Inner runs of hermetic tests, and what must be left of them: nothing."""

from __future__ import annotations

import os
from pathlib import Path

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


def processes_with(mark: str) -> list[str]:
    """Command lines of this machine's processes whose environment or command line has `mark`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return found
