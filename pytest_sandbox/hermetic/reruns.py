"""pytest-rerunfailures in a worker of pytest-xdist: a test's process counts for itself.

There the plugin asks the controller, by a socket of the worker's, how often a test has failed:
that matters for tests that take their worker along, as hermetic ones do not. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from pytest_sandbox.hermetic.companion import Companion


class RerunCompanion(Companion):
    """Gives each zygote a count in memory, as the plugin has it without workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config: Any = config

    def in_zygote(self) -> None:
        module = import_module("pytest_rerunfailures")
        self._config.failures_db = module.StatusDB()
