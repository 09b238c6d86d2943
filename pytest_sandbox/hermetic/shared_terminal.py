"""What a test writes past the capture appears where it would in a plain run. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_sandbox.hermetic.companion import Companion


class SharedTerminal(Companion):
    """Whenever a test's process lifts the capture, pytest first shows all that it was told."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def in_zygote(self) -> None:
        manager: Any = self._config.pluginmanager.get_plugin("capturemanager")
        sender: Any = self._config.pluginmanager.get_plugin("hermetic-sender")
        lift = manager.global_and_fixture_disabled

        @contextmanager
        def lift_together() -> Generator[None]:
            with lift():
                sender.wait_for_pytest()
                try:
                    yield
                finally:
                    # Both processes write to it, each from a buffer of its own.
                    sys.stdout.flush()
                    sys.stderr.flush()

        manager.global_and_fixture_disabled = lift_together
