from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Sandboxctl


@pytest.fixture
def fresh() -> Iterator[Sandboxctl]:
    """The command where no service runs yet."""
    base = tempfile.mkdtemp(prefix="sbx-", dir="/tmp")
    environ = {
        **os.environ,
        "SANDBOX_HOST": f"unix://{base}/run/docker.sock",
        "SANDBOX_ROOT": f"{base}/state",
    }
    sandboxctl = Sandboxctl(environ)
    yield sandboxctl
    assert sandboxctl("service", "stop").returncode == 0
    shutil.rmtree(base)


@pytest.mark.needs_userns
def test_from_started_to_stopped(fresh: Sandboxctl) -> None:
    host = fresh.environ["SANDBOX_HOST"]
    assert fresh.ok("service", "start") == f"started: {host}\n"
    assert fresh.ok("service", "start") == f"running already: {host}\n"
    assert fresh.environ["SANDBOX_ROOT"] in fresh.ok("service", "status")
    facts = json.loads(fresh.ok("service", "status", "--json"))
    assert f"pid {facts['Pid']}" in fresh.ok("service", "logs")
    assert fresh.ok("service", "stop") == f"stopped: {host}\n"
    assert fresh("service", "status").returncode == 3
    assert fresh.ok("service", "stop") == f"not running: {host}\n"


@pytest.mark.needs_userns
@pytest.mark.needs_busybox
def test_reset_deletes_what_the_user_could_not(fresh: Sandboxctl, busybox_tar: Path) -> None:
    root = Path(fresh.environ["SANDBOX_ROOT"])
    fresh.ok("image", "import", str(busybox_tar), "busybox")
    script = "touch /v/mine && chown 1000 /v/mine && mkdir -m 0 /v/shut"
    fresh("run", "--rm", "-v", "kept:/v", "busybox", "sh", "-c", script)
    done = fresh("service", "reset")
    assert (done.returncode, root.exists()) == (130, True)
    assert fresh.ok("service", "reset", "--yes").endswith(f"deleted: {root}\n")
    assert not root.exists()
    assert fresh.ok("service", "reset", "--yes").endswith(f"deleted: {root}\n")


def test_status_of_nothing_starts_nothing(fresh: Sandboxctl) -> None:
    done = fresh("service", "status")
    assert (done.returncode, done.stdout.startswith(b"not running")) == (3, True)
    assert fresh("service", "status", "--json").stdout == b"null\n"
    assert "not running" in fresh.ok("version")
    assert not Path(fresh.environ["SANDBOX_ROOT"]).exists()


@pytest.mark.needs_userns
def test_any_command_starts_the_service(fresh: Sandboxctl) -> None:
    assert fresh.ok("ps", "-q") == ""
    assert "Engine API 1.45" in fresh.ok("version")


@pytest.mark.needs_userns
def test_env_is_for_a_shell_and_serves_at_once(fresh: Sandboxctl) -> None:
    script = f'eval "$({" ".join(map(quoted, fresh.command("env")))})"; env'
    done = subprocess.run(["sh", "-c", script], env=fresh.environ, capture_output=True, text=True)
    host = fresh.environ["SANDBOX_HOST"]
    assert f"DOCKER_HOST={host}\n" in done.stdout
    assert "TESTCONTAINERS_RYUK_DISABLED=true\n" in done.stdout
    assert fresh.ok("service", "start") == f"running already: {host}\n"
    assert fresh.ok("env", "--unset").splitlines()[0] == "unset DOCKER_HOST"


def quoted(word: str) -> str:
    from shlex import quote

    return quote(word)


@pytest.mark.needs_userns
@pytest.mark.needs_docker_cli
def test_the_docker_command_follows_env_and_context(fresh: Sandboxctl, tmp_path: Path) -> None:
    fresh.environ = {**fresh.environ, "DOCKER_CONFIG": str(tmp_path)}
    assert fresh.ok("context", "--use").splitlines()[-1].startswith("sandbox: unix://")
    assert fresh("context").returncode == 0
    fresh.ok("service", "start")
    command = ["docker", "version", "--format", "{{.Server.APIVersion}}"]
    done = subprocess.run(command, env=fresh.environ, capture_output=True, text=True)
    assert done.stdout == "1.45\n"


def test_context_without_docker(fresh: Sandboxctl, tmp_path: Path) -> None:
    fresh.environ = {**fresh.environ, "PATH": str(tmp_path)}
    done = fresh("context")
    assert done.returncode == 1
    assert b"there is no docker command" in done.stderr
    assert b"sandboxctl env" in done.stderr


def test_doctor(fresh: Sandboxctl) -> None:
    report = json.loads(fresh("doctor", "--json").stdout)
    done = fresh("doctor")
    assert done.returncode == (0 if report["ok"] else 1)
    for check in report["checks"]:
        assert check["name"] in done.stdout.decode()
        if not check["ok"]:
            assert check["mend"] in done.stdout.decode()


def test_an_unusable_address(fresh: Sandboxctl) -> None:
    broken = Sandboxctl({**fresh.environ, "SANDBOX_HOST": "tcp://localhost:1"})
    done = broken("ps")
    assert done.returncode == 1
    what, mend = done.stderr.decode().splitlines()
    assert what.startswith("sandboxctl: SANDBOX_HOST=tcp://localhost:1: ")
    assert mend == "  to mend it: unset SANDBOX_HOST"


def test_help_loads_nothing_of_the_client() -> None:
    script = (
        "import sys, pytest_sandbox.cli as cli\n"
        "try: cli.root.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'requests', 'aiohttp', 'sandboxd', 'rich', 'pytest', 'filelock', 'asyncio'}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["run", "exec", "ps", "image", "snapshot", "doctor", "env"])
def test_every_command_explains_itself(fresh: Sandboxctl, command: str) -> None:
    assert command in fresh.ok("--help")
    assert f" {command} " in fresh.ok(command, "--help").splitlines()[0]
