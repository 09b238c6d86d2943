"""testcontainers-python, without its reaper, as a process of its own: it reads its environment
when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_docker_py,
    pytest.mark.needs_testcontainers,
    pytest.mark.needs_busybox,
]

_SCRIPT = """
from testcontainers.core.container import DockerContainer

with (
    DockerContainer("busybox")
    .with_command("sh -c 'cat /tmp/d/file; sleep 300'")
    .with_copy_into_container(b"started\\n", "/tmp/d/file")
) as container:
    code, output = container.exec(["sh", "-c", "echo from exec; exit 3"])
    assert (code, output) == (3, b"from exec\\n"), (code, output)
    for number in range(50):
        assert container.exec(["echo", str(number)]).output == f"{number}\\n".encode()
    stdout, stderr = container.get_logs()
    assert stdout == b"started\\n", stdout
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    assert wrapped.status == "running"
    name = wrapped.name

import docker
import docker.errors

try:
    docker.from_env().containers.get(name)
except docker.errors.NotFound:
    print("all is well")
"""


def test_a_container_from_start_to_stop(service: Service, busybox: str, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "DOCKER_HOST": service.host,
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all is well\n")
