"""The text of the sections in a failing test's report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_sandbox.container_state import state_phrase
from pytest_sandbox.reporting import LINE_MAX, last_lines, service_log_since


@pytest.mark.parametrize(
    ("state", "phrase"),
    [
        ({"Status": "running", "ExitCode": 0}, "running"),
        ({"Status": "created", "ExitCode": 0}, "created"),
        ({"Status": "exited", "ExitCode": 0}, "exit code 0"),
        ({"Status": "exited", "ExitCode": 3}, "exit code 3"),
        ({"Status": "exited", "ExitCode": 137}, "exit code 137, SIGKILL"),
        (
            {"Status": "exited", "ExitCode": 137, "OOMKilled": True},
            "exit code 137, SIGKILL, out of memory",
        ),
        ({"Status": "exited", "ExitCode": 255}, "exit code 255"),
    ],
)
def test_state_in_words(state: dict[str, object], phrase: str) -> None:
    assert state_phrase(state) == phrase


def test_last_lines() -> None:
    assert last_lines("", 3) == "[nothing was written]"
    assert last_lines("a\nb\n", 2) == "a\nb"
    assert last_lines("a\nb\nc\n", 2) == ("[earlier lines left out: --sandbox-log-lines=2]\nb\nc")
    assert last_lines("x" * 9999, 1) == "x" * LINE_MAX + "…"


def test_the_service_log_is_cut_where_the_test_began(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text(
        "2026-11-24T20:00:00.000Z INFO sandboxd before\n"
        "  a line of the one before\n"
        "2026-11-24T20:00:01.500Z ERROR sandboxd after\n"
        "Traceback (most recent call last):\n"
        "2026-11-24T20:00:02.000Z INFO sandboxd later\n"
    )
    began = datetime(2026, 11, 24, 20, 0, 1, tzinfo=UTC).timestamp()
    assert service_log_since(str(log), began) == (
        "2026-11-24T20:00:01.500Z ERROR sandboxd after\n"
        "Traceback (most recent call last):\n"
        "2026-11-24T20:00:02.000Z INFO sandboxd later"
    )
    assert service_log_since(str(log), began + 60) == ""


def test_a_service_without_a_log(tmp_path: Path) -> None:
    assert service_log_since(str(tmp_path / "none"), 0.0) == ""
