"""Hooks that the plugin calls; a conftest.py or another plugin implements them.

The plugin's own reporting comes in through them too: pytest_sandbox.reporting.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_sandbox import Container


@pytest.hookspec
def pytest_sandbox_container_started(container: Container, request: pytest.FixtureRequest) -> None:
    """A fixture's container was started; it need not be ready, and may be dead, already.

    :param container: the container.
    :param request: the request of the fixture that it is the value of.
    """


@pytest.hookspec
def pytest_sandbox_container_stopping(container: Container, request: pytest.FixtureRequest) -> None:
    """A fixture's container is about to be removed: its log and exit code can still be read.

    :param container: the container.
    :param request: the request of the fixture that it is the value of.
    """
