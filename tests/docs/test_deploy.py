"""The commands of service/deploy/README.md, and the units that they install.

Where no systemd serves this user, `systemctl` works on files alone; what systemd would do with the
socket is then done by its own systemd-socket-activate.
"""

from __future__ import annotations

import configparser
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_sandbox import connect
from tests.docs.test_documents import REPOSITORY, blocks

pytestmark = [pytest.mark.needs_systemd, pytest.mark.needs_userns]
DEPLOY = REPOSITORY / "service" / "deploy"


@pytest.fixture
def environ(service_directory: Path) -> dict[str, str]:
    """A user's own, with the service's program where the units look for it."""
    home = service_directory / "home"
    program = home / ".local" / "bin" / "sandboxd"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).parent / "sandboxd")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(service_directory / "run"),
        "SANDBOX_ROOT": str(service_directory / "state"),
        "SYSTEMD_OFFLINE": "1",
    }


@pytest.fixture
def installed(environ: dict[str, str]) -> Path:
    """Where the README's commands have put the units."""
    (block,) = blocks(DEPLOY / "README.md")
    assert block.language == "sh"
    offline = block.code.replace(" --now", "")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", offline], cwd=DEPLOY, env=environ, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return Path(environ["HOME"], ".config", "systemd", "user")


def _unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def test_systemd_finds_nothing_wrong_with_the_units(
    installed: Path, environ: dict[str, str]
) -> None:
    assert (installed / "sockets.target.wants" / "sandboxd.socket").is_symlink()
    Path(environ["XDG_RUNTIME_DIR"]).mkdir(mode=0o700)
    units = ["sandboxd.socket", "sandboxd.service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *(installed / unit for unit in units)],
        env=environ,
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "sandboxd" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_first_connection_starts_the_service(installed: Path, environ: dict[str, str]) -> None:
    def meant(text: str) -> str:
        return text.replace("%t", environ["XDG_RUNTIME_DIR"]).replace("%h", environ["HOME"])

    socket = meant(_unit(installed / "sandboxd.socket")["Socket"]["ListenStream"])
    service = _unit(installed / "sandboxd.service")["Service"]
    name, _, value = service["Environment"].partition("=")
    Path(socket).parent.mkdir(parents=True, mode=0o700)
    passed = [f"--setenv={each}" for each in ("HOME", "SANDBOX_ROOT", "XDG_RUNTIME_DIR")]
    command = ["systemd-socket-activate", f"--listen={socket}", *passed, f"--setenv={name}={value}"]
    process = subprocess.Popen(
        [*command, *meant(service["ExecStart"]).split()],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"Listening" in process.stderr.readline()
        with connect(f"unix://{socket}", autostart=False) as client:
            assert client.run("host", ["echo", "hello"]).stdout == b"hello\n"
            pidfd = os.pidfd_open(client.status()["Pid"])
            client.shutdown()
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
