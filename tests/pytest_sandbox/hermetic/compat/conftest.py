"""A project for inner runs, and plugins that only they see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

pytest.register_assert_rewrite("tests.pytest_sandbox.hermetic.compat.inner_runs")

from tests.pytest_sandbox.hermetic.compat.inner_runs import Project  # noqa: E402


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project of the test's own."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def plugins_apart(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory with plugins that would change every run that they are installed for.

    They are found by who has it on PYTHONPATH. Installed once for all workers of this run.
    """
    shared = tmp_path_factory.getbasetemp()
    place = (shared if worker_id == "master" else shared.parent) / "plugins-apart"
    wanted = ["django>=5", "asgiref", "sqlparse", "pytest-django>=4.9", "pytest-randomly>=3.16"]
    with FileLock(f"{place}.lock"):
        if not place.exists():
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
                + [f"--target={place}", *wanted],
                check=True,
                timeout=110,
            )
    return place
