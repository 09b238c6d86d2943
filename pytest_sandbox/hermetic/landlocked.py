"""What is left of a sandbox where user namespaces are denied: a fork, and Landlock around it.

A test's process may write below pytest's temporary directory only, where it has a TMPDIR and a HOME
of its own, and it may not connect by TCP, not even to itself: Landlock knows ports, no addresses.
What it leaves behind stays. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_sandbox.hermetic.settings import asked_of, default_scope
from sandboxd.linux import landlock

_ALWAYS: Final = ("/dev", "/proc")
"""Devices and what a process says about itself: written to by everything."""
_OF_HYPOTHESIS: Final = ".hypothesis"


class Landlocked:
    """A plugin of runs whose tests are forked without a sandbox; it acts in the forks alone."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._scope = default_scope(config)
        self._pytest = self._confined = os.getpid()
        factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
        self._base: Path = factory.getbasetemp()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if self._confined != os.getpid() != self._pytest:
            self._confined = os.getpid()
            asked = asked_of(item, self._scope)
            self._confine(tcp=asked is None or asked.network != "host")
        return (yield)

    def _confine(self, *, tcp: bool) -> None:
        own = Path(tempfile.mkdtemp(prefix="hermetic-", dir=self._base))
        for variable, name in (("TMPDIR", "tmp"), ("HOME", "home")):
            (own / name).mkdir(mode=0o700)
            os.environ[variable] = str(own / name)
        tempfile.tempdir = None
        examples = self._config.rootpath / _OF_HYPOTHESIS
        writable = [str(self._base), *_ALWAYS, *([str(examples)] if examples.is_dir() else [])]
        landlock.confine(writable, tcp=tcp)


def describe(why: str) -> str:
    """The line of the header. `why`: what the kernel said about user namespaces."""
    try:
        limits = landlock.confined()
    except OSError as error:
        return f"hermetic: no sandboxes here ({why}), and no Landlock ({error}): forks alone"
    forbidden = "writes outside the temporary directory"
    forbidden += " and TCP connections are refused" if limits.tcp else " are refused"
    return f"hermetic: no sandboxes here ({why}): tests are forked, {forbidden} by Landlock"


def confine_forks(config: pytest.Config) -> None:
    """From now on every fork that runs tests confines itself, where the kernel has Landlock."""
    try:
        landlock.abi()
    except OSError:
        return
    config.pluginmanager.register(Landlocked(config), "hermetic-landlocked")
