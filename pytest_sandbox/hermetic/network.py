"""Whose network the containers of hermetic tests join, so that tests meet them on localhost.

In a test's process it is the sandbox's own. In pytest's process, where fixtures wider than the
sandbox are set up, it is that of a sandbox which is made for this and runs no test; the tests of
such fixtures then share that network. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

OWN: Final = "own"
HOST: Final = "host"
SHARED: Final = "shared"


class _Current:
    """What `current_network` says in this process."""

    find: Callable[[], str | None] = staticmethod(lambda: None)


def current_network() -> str | None:
    """`pid:PID`, for a container's `network`, where a hermetic test or a fixture of one is what
    asks for the container; else None: the container gets a network of its own."""
    return _Current.find()


def be_in_network_of(pid: int) -> None:
    """From now on this process's containers join the network of that process, which it is in."""
    _Current.find = lambda: f"pid:{pid}"


@contextmanager
def joining(find: Callable[[], str | None]) -> Iterator[None]:
    """Within the block `current_network` asks `find`."""
    before = _Current.find
    _Current.find = find
    try:
        yield
    finally:
        _Current.find = before
