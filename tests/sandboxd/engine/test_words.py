"""Names, signals, times and durations as Docker writes them."""

from __future__ import annotations

import signal

import pytest

from sandboxd.engine.clock import human_duration, rfc3339
from sandboxd.engine.names import checked_name, random_name
from sandboxd.engine.pruning import moment
from sandboxd.engine.signals import signal_number
from sandboxd.errors import BadRequest


@pytest.mark.parametrize("name", ["a1", "/a1", "A.b_c-d", "0x"])
def test_names_that_docker_takes(name: str) -> None:
    assert checked_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["a", "", "-a", "a b", "a/b", "../a", "ä1", "a1\n", "//a1"])
def test_names_that_docker_refuses(name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid container name"):
        checked_name(name)


def test_random_names_are_valid_and_avoid_those_taken() -> None:
    taken: set[str] = set()
    for _ in range(300):
        name = random_name(taken)
        assert checked_name(name) == name
        assert name not in taken
        taken.add(name)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        ("9", 9),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "NOPE", "SIG", "_DFL", "RTMAX+9", "KILL;"])
def test_signals_that_do_not_exist(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid signal"):
        signal_number(text)


def test_times_have_nine_decimals_and_zero_is_gos() -> None:
    assert rfc3339(1_795_500_000_123_456_789) == "2026-11-24T06:00:00.123456789Z"
    assert rfc3339(0) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (3.9, "3 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_moments_of_a_prune_filter() -> None:
    assert moment("12.5") == 12.5
    assert moment("2026-11-24T06:00:00+00:00") == 1_795_500_000
    assert moment("1h30m") == pytest.approx(moment("5400s"), abs=5)
    with pytest.raises(BadRequest):
        moment("soon")
