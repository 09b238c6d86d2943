"""Hermetic tests and the sandbox service: their sandboxes lie where its containers can join them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pytest_sandbox.errors import SandboxError
from pytest_sandbox.hermetic.denied import enter_within
from pytest_sandbox.hermetic.settings import Asked
from pytest_sandbox.hermetic.warning import warn
from pytest_sandbox.options import options_of

_FIXTURE = "sandbox"


def are_used(session: pytest.Session, asked: Sequence[Asked | None]) -> bool:
    """Whether a fixture of a hermetic test uses the service."""
    return any(
        wanted is not None and _FIXTURE in getattr(item, "fixturenames", ())
        for item, wanted in zip(session.items, asked, strict=True)
    )


def lie_in_service(config: pytest.Config) -> tuple[str, ...]:
    """Have the maker build below the service's user namespace; the service starts if need be.

    Returns what of the host every sandbox must see to reach the service: the directory of its
    socket. Without a service, the tests will say so themselves.
    """
    from pytest_sandbox.client.session import connect

    try:
        with connect(options_of(config).host, lease=False) as client:
            namespace = client.user_namespace()
            directory = os.path.dirname(client.service.socket_path)
        try:
            enter_within(config, namespace)
        finally:
            os.close(namespace)
    except SandboxError as error:
        warn(config, f"containers of hermetic tests are not in their tests' networks: {error}")
        return ()
    return (str(directory),)
