"""pytest-forked, a fork for each test and nothing else, on a pytest that it still runs on."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.peers import Absent

_PYTEST = "pytest==8.4.*"
"""On pytest 9 its reports do not survive the fork: every test fails."""


@cache
def python(work: Path) -> str:
    """The interpreter of a virtual environment with it, made below `work`; or Absent."""
    environment = work / "forked"
    found = environment / "bin" / "python"
    for argv in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(found), "-m", "pip", "install", "-q", _PYTEST, "pytest-forked"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise Absent(f"pytest-forked: {(done.stderr or done.stdout).strip()[-200:]}")
    return str(found)
