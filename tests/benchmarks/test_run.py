"""The benchmarks run, count and report; what they measure is not a matter of tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox, pytest.mark.timeout(300)]


def quick(tmp_path: Path, scenario: str) -> dict[str, Any]:
    """The JSON of one scenario, run from the checkout with a tenth of the runs."""
    report = tmp_path / "report.json"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(report), scenario],
        cwd=REPOSITORY,
        env=environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a goal was missed…
    assert report.exists(), done.stderr  # …or something was raised
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["machine"]["kernel"] == os.uname().release
    (only,) = found["scenarios"]
    return dict(only)


def test_one_shot_measures_us_and_every_peer_that_is_there(tmp_path: Path) -> None:
    scenario = quick(tmp_path, "one-shot")
    subjects = {row["subject"] for row in scenario["rows"]}
    assert "pytest-sandbox" in subjects
    peers = {"C floor", "bwrap --unshare-all", "runc run", "podman run --rm", "docker run --rm"}
    assert subjects | scenario["absent"].keys() >= peers
    assert all(row["runs"] == len(row["samples"]) >= 1 for row in scenario["rows"])
    assert {goal["limit"] for goal in scenario["goals"]} == {2.5, 1.0}


def test_containers_leave_nothing_behind(tmp_path: Path) -> None:
    scenario = quick(tmp_path, "sequential")
    left = {goal["text"]: goal["value"] for goal in scenario["goals"]}
    assert left == {
        f"{kind} left behind": 0
        for kind in ("processes", "mounts", "cgroups", "directories", "descriptors")
    }
