"""The companions of a run: coverage, properties of the suite… PYTEST_DONT_REWRITE"""

from __future__ import annotations

import sys

import pytest

from pytest_sandbox.hermetic.companion import Companion

_COMPANIONS = pytest.StashKey[list[Companion]]()


def of(config: pytest.Config) -> list[Companion]:
    """Those of this run, in the order of registration: `of(config).append`."""
    return config.stash.setdefault(_COMPANIONS, [])


def gather(config: pytest.Config) -> None:
    """Register those that this run's plugins need, before the first test."""
    from pytest_sandbox.hermetic import late_imports
    from pytest_sandbox.hermetic.import_warnings import ImportWarnings
    from pytest_sandbox.hermetic.threads import ForkCompanion

    found: list[Companion | None] = [ForkCompanion(config), ImportWarnings()]
    found.append(late_imports.companion_of(config))
    if "coverage" in sys.modules:
        from pytest_sandbox.hermetic import coverage

        found.append(coverage.companion_of(config))
    if config.pluginmanager.has_plugin("capturemanager"):
        from pytest_sandbox.hermetic.shared_terminal import SharedTerminal

        found.append(SharedTerminal(config))
    if hasattr(config.hook, "pytest_timeout_set_timer"):
        from pytest_sandbox.hermetic.watchdog import Watchdog

        found.append(Watchdog(config))
    if hasattr(config, "workerinput") and hasattr(config, "failures_db"):
        from pytest_sandbox.hermetic.reruns import RerunCompanion

        found.append(RerunCompanion(config))
    if config.getoption("xmlpath", None):
        from pytest_sandbox.hermetic import junit

        found.append(junit.companion_of(config))
    of(config).extend(companion for companion in found if companion is not None)
