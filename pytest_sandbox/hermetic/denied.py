"""Whether this machine lets us make sandboxes. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import pytest

from pytest_sandbox.errors import HostLacks
from pytest_sandbox.hermetic.network import OWN
from pytest_sandbox.hermetic.settings import STARTED
from pytest_sandbox.hermetic.surroundings import Surroundings
from pytest_sandbox.hermetic.workshop import Workshop

_WORKSHOP = pytest.StashKey[Workshop]()
_REASON = pytest.StashKey[str | None]()


def workshop_of(config: pytest.Config) -> Workshop:
    """The maker of this run, started when it is first asked for."""
    if _WORKSHOP not in config.stash:
        config.stash[_WORKSHOP] = Workshop()
        config.stash[STARTED] = True
    return config.stash[_WORKSHOP]


def close_workshop(config: pytest.Config) -> None:
    """End the maker, if it was started and is not ended, and every sandbox with it."""
    workshop = config.stash.get(_WORKSHOP, None)
    if workshop is not None:
        workshop.close()


def enter_within(config: pytest.Config, namespace: int) -> None:
    """Have a maker whose user namespace lies in that of the descriptor. Raises HostLacks."""
    workshop = workshop_of(config)
    if workshop.entered:
        workshop.close()
        workshop = config.stash[_WORKSHOP] = Workshop()
    workshop.enter(namespace)


def sandboxes_possible(config: pytest.Config) -> str | None:
    """None where a sandbox of this run can be built, as has been tried once; else why not."""
    if _REASON not in config.stash:
        workshop = workshop_of(config)
        try:
            workshop.enter()
            workshop.prove(Surroundings(config).plan(None, OWN))
        except HostLacks as error:
            config.stash[_REASON] = str(error)
        else:
            config.stash[_REASON] = None
    return config.stash[_REASON]
