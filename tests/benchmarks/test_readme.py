"""The README's figures are those of the run that is kept beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_figures_are_those_of_the_saved_run() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    account = subprocess.run(
        [sys.executable, "-B", "-m", "benchmarks.markdown", "benchmarks/latest.json"],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert account.stdout in (REPOSITORY / "README.md").read_text()
