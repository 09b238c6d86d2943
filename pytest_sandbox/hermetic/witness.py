"""Who looks at a sandbox from outside while a hermetic test runs in it. PYTEST_DONT_REWRITE

A witness sees what the kernel knows, whatever the test's process did: the files that were written
(`Shell.uppers`), the namespaces (`Shell.pidfd`), the processes. Reports of escapes, post mortems
and the cost of a run are witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pytest

from pytest_sandbox.hermetic.shell import Shell


class Witness(Protocol):
    """Called in pytest's own process, in the order of registration: `witnesses(config).append`.

    One with `only_failures = True` is told only of the ends of tests that have failed; then tests
    that pass do not wait for it.
    """

    def sandbox_ready(self, shell: Shell, nodeid: str) -> None:
        """Before the first process of `nodeid`'s test, or of its class or module, enters."""

    def test_began(self, shell: Shell, nodeid: str) -> None:
        """The test is about to begin; nothing of it has run."""

    def test_ended(
        self, shell: Shell, nodeid: str, reports: Sequence[pytest.TestReport]
    ) -> Sequence[pytest.TestReport]:
        """The reports to show instead of `reports`: with more sections, or with a failure.

        The sandbox still stands and the test's process waits, or has died. `reports` are those of
        one protocol run, in order; the last is that of the teardown, or of the crash.
        """
        ...

    def sandbox_ends(self, shell: Shell, nodeid: str, failed: bool) -> bool:
        """No process will enter any more. True: this witness wants it kept, and has to end it
        itself; later witnesses are not asked. `failed`: whether one of its tests did."""
        ...


def only_failures(witness: Witness) -> bool:
    """Whether passing tests are none of its concern."""
    return getattr(witness, "only_failures", False) is True


_WITNESSES = pytest.StashKey[list[Witness]]()


def witnesses(config: pytest.Config) -> list[Witness]:
    """Those of this run. Register before the first test: in pytest_configure, after collection."""
    return config.stash.setdefault(_WITNESSES, [])


_PREPARATIONS = pytest.StashKey[list[Callable[[], None]]]()


def zygote_preparations(config: pytest.Config) -> list[Callable[[], None]]:
    """Called, in order, in each zygote once it is in the sandboxes' user namespace and still has
    all capabilities there: what they do to it, the tests' processes inherit."""
    return config.stash.setdefault(_PREPARATIONS, [])
