"""What of this run the plan of a sandbox depends on. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pytest_sandbox.hermetic import example_database
from pytest_sandbox.hermetic.plan import Host, Plan, build


class Surroundings:
    """The plans of this run's sandboxes, one for each set of wishes."""

    def __init__(
        self,
        config: pytest.Config,
        items: Sequence[pytest.Item] = (),
        sockets: tuple[str, ...] = (),
    ) -> None:
        """`items`: the tests, if they are known. `sockets`: what is bound as it is."""
        self._config = config
        self._items = items
        self._sockets = sockets
        self._host: Host | None = None
        self._base = ""
        self._plans: dict[tuple[object, ...], Plan] = {}

    def plan(self, paths: tuple[str, ...] | None, network: str) -> Plan:
        """What a sandbox for this looks like: with the declared paths, in that network."""
        key = (paths, network)
        if key not in self._plans:
            if self._host is None:
                shared = example_database.directories()
                self._host = Host.here(self._visible(), self._sockets, shared)
            self._plans[key] = build(self._host, paths, network=network)
        return self._plans[key]

    def look_again(self) -> bool:
        """Whether sandboxes that were built before must not be used: fixtures may have written
        below pytest's own temporary directory, which all must see."""
        base = _basetemp(self._config)
        if base == "" or (base == self._base and self._host is None):
            return False
        self._base, self._host = base, None
        self._plans.clear()
        return True

    def _visible(self) -> Iterator[str]:
        config = self._config
        yield str(config.rootpath)
        yield str(config.invocation_params.dir)
        yield from (sys.prefix, sys.base_prefix, os.path.dirname(sys.executable))
        yield from (os.path.abspath(path) for path in sys.path if path)
        yield from {str(item.path.parent) for item in self._items}
        factory: Any = getattr(config, "_tmp_path_factory", None)
        given = getattr(factory, "_given_basetemp", None)
        if given is not None:
            yield str(given.parent)
        yield _basetemp(config)


def _basetemp(config: pytest.Config) -> str:
    """pytest's temporary directory, if something has been put there; else empty."""
    made = getattr(getattr(config, "_tmp_path_factory", None), "_basetemp", None)
    return "" if made is None else str(made)
