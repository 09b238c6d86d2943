"""Clients that come and go, or are killed in the middle, leave nothing in the service."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Docker

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_docker_cli, pytest.mark.needs_busybox]

_PATIENCE = 20.0


def descriptors(service: Service) -> int:
    assert service.process is not None
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


def kill_after_first_byte(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.read(1)
    process.kill()
    process.communicate()


def test_descriptors_return_to_where_they_were(
    own_service: Service, busybox_tar: Path, tmp_path: Path
) -> None:
    command = next(iter(_first_docker()))
    docker = Docker(command, own_service.host, tmp_path / "config")
    docker.output("import", str(busybox_tar), "busybox")
    docker.output("run", "--rm", "busybox", "true")
    script = "while :; do echo x; sleep 0.02; done"
    docker.output("run", "-di", "--name", "noisy", "busybox", "sh", "-c", script)
    docker.output("exec", "noisy", "true")
    before = settled(own_service)
    for _ in range(5):
        docker("run", "--rm", "busybox", "true")
        docker("run", "--rm", "busybox", "/no/such/command")
        docker("exec", "noisy", "/no/such/command")
        docker("cp", "noisy:/etc", str(tmp_path / "etc"))
        docker("cp", "noisy:/no/such", str(tmp_path / "none"))
        kill_after_first_byte(docker.popen("logs", "-f", "noisy"))
        kill_after_first_byte(docker.popen("attach", "noisy"))
        kill_after_first_byte(docker.popen("exec", "-i", "noisy", "sh", "-c", "echo x; cat"))
        kill_after_first_byte(docker.popen("run", "--rm", "-i", "busybox", "sh", "-c", script))
        kill_after_first_byte(docker.popen("events", "--since", "1h"))
    # What runs on without its client is ended by hand.
    for container in docker.output("ps", "-q").split():
        if not docker.output("inspect", "-f", "{{.Name}}", container).endswith("/noisy"):
            docker.output("rm", "-f", container)
    docker.output("exec", "noisy", "sh", "-c", "kill -9 $(pidof cat) || true")
    deadline = time.monotonic() + _PATIENCE
    while descriptors(own_service) > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert descriptors(own_service) <= before


def settled(service: Service) -> int:
    """Once the processes that wait for the next start and the next exec are all there again."""
    counts = [descriptors(service)]
    while counts[-10:] != [max(counts)] * 10:
        time.sleep(0.02)
        counts.append(descriptors(service))
    return counts[-1]


def _first_docker() -> list[str]:
    from shutil import which

    found = which("docker")
    return [found] if found else []
