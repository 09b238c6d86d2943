"""What a plugin imports at the end of the run, and in a plain run a test had imported before.

There the import happens under pytest's filters for warnings, where they may be errors that end the
run after all its tests have passed. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator
from importlib import import_module
from typing import Final

import pytest

from pytest_sandbox.hermetic.companion import Companion

_IMPORTED_AT_THE_END: Final = {"_hypothesis_pytestplugin": "hypothesis"}


class LateImports(Companion):
    """A plugin of pytest's: it imports quietly, first, what tests' processes have imported."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()

    def child_ends(self) -> list[str]:
        return [name for name in _IMPORTED_AT_THE_END.values() if name in sys.modules]

    def child_told(self, told: list[str]) -> None:
        self._wanted.update(told)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_terminal_summary(self) -> Generator[None, object, object]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in self._wanted - sys.modules.keys():
                import_module(name)
        return (yield)


def companion_of(config: pytest.Config) -> LateImports | None:
    """One, if a plugin of this run imports something late."""
    if not sys.modules.keys() & _IMPORTED_AT_THE_END.keys():
        return None
    companion = LateImports()
    config.pluginmanager.register(companion, "hermetic-late-imports")
    return companion
