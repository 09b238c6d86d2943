"""Keeps the state of failed hermetic tests: a Witness; see pytest_sandbox.hermetic.witness."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_sandbox.hermetic.shell import Shell
from pytest_sandbox.post_mortem import recording
from pytest_sandbox.post_mortem.copying import Copier, TooLarge
from pytest_sandbox.post_mortem.settings import Bounds
from pytest_sandbox.post_mortem.shelf import Shelf
from pytest_sandbox.post_mortem.state import REPORT, UPPERS, VOLUMES, ContainerState, State

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Settings = Callable[[str], tuple[Mapping[str, str], Mapping[str, Any]]]
"""From a test's id to its environment, and to what it asked for, as JSON."""


class Keeper:
    """Copies the uppers of a test's sandbox at the moment of its failure."""

    only_failures = True
    """No passing test waits for it."""

    def __init__(self, config: pytest.Config, bounds: Bounds, settings: Settings) -> None:
        self._config, self._bounds, self._settings = config, bounds, settings
        self._shelf = Shelf()

    def sandbox_ready(self, shell: Shell, nodeid: str) -> None:
        return

    def test_began(self, shell: Shell, nodeid: str) -> None:
        return

    def test_ended(
        self, shell: Shell, nodeid: str, reports: Sequence[pytest.TestReport]
    ) -> Sequence[pytest.TestReport]:
        if any(report.failed for report in reports):
            recording.mention(reports, self._kept(shell, nodeid, reports))
        return reports

    def sandbox_ends(self, shell: Shell, nodeid: str, failed: bool) -> bool:
        return False

    def _kept(self, shell: Shell, nodeid: str, reports: Sequence[pytest.TestReport]) -> str:
        """The line for the report."""
        try:
            with self._shelf.staging() as staged:
                copier, numbers = _copy_uppers(shell, staged / UPPERS, self._bounds.size)
                (staged / REPORT).write_text(recording.text_of(reports))
                environ, settings = self._settings(nodeid)
                containers = _containers(shell, reports, staged / VOLUMES)
                state = State(
                    nodeid=nodeid,
                    when=time.time(),
                    **recording.identity(self._config, environ),  # type: ignore[arg-type]
                    settings=dict(settings),
                    plan=tuple(json.loads(shell.spec)),
                    uppers=numbers,
                    containers=containers,
                    left_out=tuple(copier.left_out),
                    size=copier.size + sum(each.size for each in containers),
                )
                self._shelf.publish(staged, state, self._bounds)
                if containers:
                    _forget_images(self._config, self._shelf)
        except TooLarge:
            return f"the state is not kept: it is larger than sandbox_keep_size={self._bounds.size}"
        except OSError as error:
            return f"the state is not kept: {error}"
        return recording.command(nodeid)


def _containers(
    shell: Shell, reports: Sequence[pytest.TestReport], target: Path
) -> tuple[ContainerState, ...]:
    """Those of the test's fixtures, whose states its own process has collected."""
    for report in reports:
        if told := getattr(report, "sandbox_containers", None):
            from pytest_sandbox.post_mortem.containers import take_over

            return take_over(f"/proc/{shell.pid}/root", told, target)
    return ()


def _forget_images(config: pytest.Config, shelf: Shelf) -> None:
    """Those of states that went when this one came."""
    from pytest_sandbox import SandboxError, connect
    from pytest_sandbox.options import options_of
    from pytest_sandbox.post_mortem.containers import forget_images

    with suppress(SandboxError), connect(options_of(config).host, lease=False) as client:
        forget_images(client, shelf)


def _copy_uppers(shell: Shell, target: Path, budget: int) -> tuple[Copier, tuple[str, ...]]:
    """Those that hold anything, under their numbers."""
    copier, numbers = Copier(budget), []
    target.mkdir(mode=0o700)
    for number, place in shell.layout.items():
        upper = os.open(f"{number}/upper", _DIRECTORY, dir_fd=shell.uppers)
        try:
            if os.listdir(upper):
                (target / number).mkdir(mode=0o700)
                copy = os.open(target / number, _DIRECTORY)
                try:
                    copier.copy(upper, copy, place.rstrip("/"))
                finally:
                    os.close(copy)
                numbers.append(number)
        finally:
            os.close(upper)
    return copier, tuple(numbers)
