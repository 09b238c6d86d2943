"""What a fork of pytest's process cannot take along: its threads, and connections in use.

A thread does not exist in the fork, and a lock that it held stays locked there; a connected socket
that two processes speak on mixes up both. Found before the zygote is forked and said once, by name.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from pytest_sandbox.hermetic.companion import Companion
from pytest_sandbox.hermetic.warning import warn

_HARMLESS: Final = ("pytest_timeout ", "execnet")
"""How the names of threads begin that are known to do nothing while tests run."""
_HARMLESS_MODULES: Final = ("pytest_rerunfailures",)
"""Plugins whose threads hold nothing that a test waits for."""


class ForkCompanion(Companion):
    """Looks at pytest's process before each fork of a zygote."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._said: set[str] = set()

    def before_fork(self, kept: frozenset[int]) -> None:
        if named := self._new(threads()):
            warn(
                self._config,
                f"threads of pytest's process do not exist in its tests' processes, and a lock "
                f"that they hold stays locked there: {', '.join(named)}",
            )
        if named := self._new(connections(kept)):
            warn(
                self._config,
                f"connected sockets of pytest's process, which its tests' processes cannot use "
                f"apart from it: {', '.join(named)}",
            )

    def _new(self, names: Iterator[str]) -> list[str]:
        found = [name for name in names if name not in self._said]
        self._said.update(found)
        return found


def threads() -> Iterator[str]:
    """The names of Python's threads besides this one."""
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.name.startswith(_HARMLESS):
            continue
        work = getattr(thread, "_target", None)
        if getattr(work, "__module__", "") not in _HARMLESS_MODULES:
            yield thread.name


def connections(kept: frozenset[int]) -> Iterator[str]:
    """`fd N: OWN -> PEER` of each connected socket with an address.

    One of `kept`, which a fixture has opened, is said to be shared by all tests.
    """
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        ends = _ends(fd)
        if any(ends):
            shared = " (of a fixture: all tests share it)" if fd in kept else ""
            yield f"fd {fd}: {ends[0] or 'unnamed'} -> {ends[1] or 'unnamed'}{shared}"


def _ends(fd: int) -> tuple[str, str]:
    """Both addresses of a connected socket; empty for anything else, and for a socketpair."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return "", ""
        with socket.socket(fileno=os.dup(fd)) as found:
            peer = found.getpeername()
            return _text(found.getsockname()), _text(peer)
    except OSError:
        return "", ""


def _text(address: object) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address) if isinstance(address, str | bytes) else str(address)
