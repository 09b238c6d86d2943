"""The option `snapshot_cache`: a run's client looks into a registry before it builds a snapshot."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

from pytest_sandbox.client.session import Client
from pytest_sandbox.options import options_of


def use_snapshot_cache(client: Client, config: pytest.Config) -> None:
    """Let the client do what the options say."""
    options = options_of(config)
    client.snapshot_cache = options.snapshot_cache
    client.snapshot_cache_push = options.snapshot_cache_push
    client.on_cache_failure = _warner(config)


def _warner(config: pytest.Config) -> Callable[[str], None]:
    """Says a thing once, in the run's summary of warnings, also where warnings are errors: what
    goes wrong with a cache must fail no test."""
    said: set[str] = set()

    def warn(text: str) -> None:
        if text in said:
            return
        said.add(text)
        category = pytest.PytestWarning
        message = warnings.WarningMessage(category(text), category, "pytest_sandbox", 0)
        about = {"warning_message": message, "nodeid": "", "when": "runtest", "location": None}
        config.hook.pytest_warning_recorded.call_historic(kwargs=about)

    return warn
