"""testcontainers-python against a Docker socket; its ryuk container is off, which favours it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.alternate import Subject, timed
from benchmarks.peers import Absent
from benchmarks.rootfs import IMAGE

NAME = "testcontainers on dockerd"
NAME_ON_OURS = "testcontainers on pytest-sandbox"
POLL = 1.0
"""Seconds between two looks of its wait strategies, unless the user changes a setting."""


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"testcontainers.{name}")
    except ImportError as error:
        raise Absent(f"not installed: {error}") from error


def _client(host: str) -> dict[str, object]:
    return {"environment": {"DOCKER_HOST": host}}


def start_exec_remove(name: str, host: str, *, every: int = 1) -> Subject:
    """One container that sleeps, one exec of /bin/true in it, removal."""
    container_type = _module("core.container").DockerContainer
    _module("core.config").testcontainers_config.ryuk_disabled = True

    def run() -> None:
        container = container_type(IMAGE, docker_client_kw=_client(host))
        container.with_command("sleep 1000").with_kwargs(network_mode="none")
        with container as started:
            assert started.exec(["/bin/true"]).exit_code == 0

    try:
        run()
    except Exception as error:  # its errors, docker-py's or requests'
        raise Absent(f"{type(error).__name__}: {error}") from error
    return Subject(name, timed(run), every=every)


@contextlib.contextmanager
def postgres(host: str, image: str, seed: Path, sockets: Path, poll: float) -> Iterator[str]:
    """A PostgresContainer that runs initdb and the seed file; yields a connection string.

    Its own readiness check (psql inside the container) decides when it is ready, looking every
    `poll` seconds. The test connects through a bound socket directory: no port is published.
    """
    container_type = _module("community.postgres").PostgresContainer
    config = _module("core.config").testcontainers_config
    config.ryuk_disabled, config.sleep_time = True, poll
    container = container_type(image, docker_client_kw=_client(host))
    container.with_kwargs(network_mode="none")
    container.with_volume_mapping(str(seed), "/docker-entrypoint-initdb.d/seed.sql", "ro")
    container.with_volume_mapping(str(sockets), "/var/run/postgresql", "rw")
    with container:
        yield f"host={sockets} user=test password=test dbname=test"
