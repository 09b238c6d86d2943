"""The warnings of hermetic runs. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import warnings

import pytest


class HermeticWarning(pytest.PytestWarning):
    """Something about a hermetic test that did not change its outcome."""


def warn(config: pytest.Config, text: str) -> None:
    """Show a HermeticWarning about the run in the summary, whatever filters say."""
    record(config, warnings.WarningMessage(HermeticWarning(text), HermeticWarning, "hermetic", 0))


def record(
    config: pytest.Config,
    message: warnings.WarningMessage,
    when: str = "config",
    nodeid: str = "",
    location: object = None,
) -> None:
    """Call the hook for warnings; the parameters are its own."""
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={
            "warning_message": message,
            "when": when,
            "nodeid": nodeid,
            "location": location,
        }
    )
