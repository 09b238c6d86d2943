"""A plugin for `sandboxctl rerun`: the containers of fixtures go on from what was kept of them."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.hermetic.network import be_in_network_of
from pytest_sandbox.post_mortem import state as states
from pytest_sandbox.post_mortem.revival import revived
from pytest_sandbox.post_mortem.shelf import Kept
from pytest_sandbox.post_mortem.variables import NETWORK, STATE


def pytest_configure() -> None:
    if NETWORK in os.environ:
        be_in_network_of(int(os.environ[NETWORK]))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    value = yield
    if fixturedef.argname == "sandbox":
        path = Path(os.environ[STATE])
        state = states.load(path)
        if state is None:
            raise pytest.UsageError(f"{path}: it is no kept state any more")
        value.prepare_body = _Resumption(value, Kept(path, state))
    return value


class _Resumption:
    """Changes what is sent for a container whose fixture has left a state."""

    def __init__(self, client: Any, kept: Kept) -> None:
        self._client, self._kept = client, kept
        self._left = {each.fixture: each for each in kept.state.containers}

    def __call__(self, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self._left.pop(name.rpartition("-")[0], None)
        return body if found is None else revived(self._client, self._kept, found, body)
