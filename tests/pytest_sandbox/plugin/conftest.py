"""Inner pytest runs, each a process of its own, against a service or against none at all."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import ServiceUnavailable, connect

if TYPE_CHECKING:
    from tests.conftest import Service

INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs without any setting of the outer run."""
    for name in ("HOST", "IMAGE", "CONTAINER_IMAGE", "TIMEOUT", "LOG_LINES", "SHOW", "POSTGRES"):
        monkeypatch.delenv(f"SANDBOX_{name}", raising=False)
    for name in (
        "SKIP_UNAVAILABLE",
        "SNAPSHOT_CACHE",
        "SNAPSHOT_CACHE_PUSH",
        "PREFETCH",
        "OFFLINE",
    ):
        monkeypatch.delenv(f"SANDBOX_{name}", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(INI)
    return pytester


@pytest.fixture
def untouched(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a socket where no service is: it must not appear during the run."""
    directory = inner.path / "run"
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{directory}/docker.sock")
    monkeypatch.setenv("SANDBOX_ROOT", str(inner.path / "state"))
    return directory


@pytest.fixture
def live(
    inner: pytest.Pytester, service: Service, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Inner runs that use the shared service."""
    monkeypatch.setenv("SANDBOX_HOST", service.host)
    return inner


@pytest.fixture
def autostarted(
    inner: pytest.Pytester, service_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.Pytester]:
    """Inner runs that have to start a service; it is stopped after the test."""
    host = f"unix://{service_directory}/run/docker.sock"
    monkeypatch.setenv("SANDBOX_HOST", host)
    monkeypatch.setenv("SANDBOX_ROOT", f"{service_directory}/state")
    yield inner
    with connect(host, autostart=False) as client, suppress(ServiceUnavailable):
        pidfd = os.pidfd_open(client.status()["Pid"])
        client.shutdown()
        select.select([pidfd], [], [], 30)
        os.close(pidfd)
