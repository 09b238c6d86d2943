"""What the escape report is asked to do: its option, its ini keys. PYTEST_DONT_REWRITE"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

FLAG: Final = "--hermetic-report"
_MODES: Final = ("observe", "strict")
_KINDS: Final = ("writes", "connections", "names", "processes", "sockets", "environment")


class ReportSettings(NamedTuple):
    """`failing` are the kinds of escapes that fail a test; empty when it is only observed."""

    failing: frozenset[str]
    ignored: tuple[str, ...]
    """More patterns for names (or, with a slash, whole paths) that no report mentions."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("sandbox", "throwaway containers (pytest-sandbox)")
    group.addoption(
        FLAG,
        default=None,
        metavar="MODE",
        help="Tell what hermetic tests reach beyond tmp_path (MODE observe) or fail them (strict)",
    )
    parser.addini("hermetic_report", "observe or strict: see --hermetic-report", default="")
    parser.addini(
        "hermetic_strict",
        "Kinds of escapes that fail a test with --hermetic-report=strict; all by default",
        type="args",
        default=list(_KINDS),
    )
    parser.addini(
        "hermetic_ignore",
        "More patterns for the names of files that the report leaves out",
        type="args",
        default=[],
    )


def report_settings(config: pytest.Config) -> ReportSettings | None:
    """None where no report is wanted. Raises UsageError that names the source of a bad value."""
    option = config.getoption(FLAG)
    source, mode = (FLAG, option) if option is not None else ("hermetic_report", _ini(config))
    kinds = config.getini("hermetic_strict")
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        known = ", ".join(_KINDS)
        raise pytest.UsageError(f"hermetic_strict={unknown[0]}: it is none of {known}")
    if mode in ("", None) and option is None:
        return None
    if mode not in _MODES:
        raise pytest.UsageError(f"{source}={mode}: it is neither observe nor strict")
    failing = frozenset(kinds) if mode == "strict" else frozenset()
    return ReportSettings(failing, tuple(config.getini("hermetic_ignore")))


def _ini(config: pytest.Config) -> str:
    return str(config.getini("hermetic_report"))
