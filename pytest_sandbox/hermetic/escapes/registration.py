"""Brings the escape report into a run of pytest that wants one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_sandbox.hermetic.escapes.environment import ProcessWatch
from pytest_sandbox.hermetic.escapes.settings import ReportSettings
from pytest_sandbox.hermetic.escapes.summary import Summary
from pytest_sandbox.hermetic.escapes.watch import Watch
from pytest_sandbox.hermetic.escapes.witness import EscapeWitness
from pytest_sandbox.hermetic.warning import warn
from pytest_sandbox.hermetic.witness import witnesses, zygote_preparations


def report_at_the_end(config: pytest.Config) -> None:
    """In the process that talks to the user."""
    config.pluginmanager.register(Summary(), "hermetic-report-summary")


def watch_tests(config: pytest.Config, settings: ReportSettings, sockets: Iterable[str]) -> None:
    """In a process that runs hermetic tests, before the first of them. `sockets`: paths of unix
    sockets that tests are meant to reach."""
    watch = None
    try:
        watch = Watch(sockets)
        config.add_cleanup(watch.close)
        zygote_preparations(config).append(watch.install_filter)
    except OSError as error:
        warn(config, f"connections and names are not seen: {error}")
    config.pluginmanager.register(ProcessWatch(), "hermetic-report-process")
    own = settings._replace(ignored=(*settings.ignored, *_basetemp(config)))
    witnesses(config).append(EscapeWitness(config, own, watch))


def _basetemp(config: pytest.Config) -> list[str]:
    """The directory in which tmp_path lies, where the user has named one."""
    given = config.option.basetemp
    return [str(Path(given).resolve())] if given else []
