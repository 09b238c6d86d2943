"""`sandboxctl registry serve`, as somebody runs it in a terminal."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_userns

_MAIN = [sys.executable, "-c", "from pytest_sandbox.cli import main; main()", "registry", "serve"]


def test_it_serves_until_interrupted(service_directory: Path) -> None:
    environ = {**os.environ, "SANDBOX_ROOT": str(service_directory / "state")}
    command = [*_MAIN, "--listen", "127.0.0.1:0", "--read-only"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "registry" in line and " on http" in line)
        found = re.search(r" on http://([\d.]+:\d+), state (\S+)", said)
        assert found is not None
        assert found[2] == str(service_directory / "state")
        connection = http.client.HTTPConnection(found[1])
        connection.request("GET", "/v2/_catalog")
        assert connection.getresponse().read() == b'{"repositories": []}'
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (["--listen", "0.0.0.0:0"], 1, "whoever reaches it could write (to mend it: --token-file"),
        (["--token-file", "/nowhere/tokens"], 2, "'/nowhere/tokens' does not exist"),
        (["--listen", "nonsense"], 1, "neither HOST:PORT nor unix:///PATH"),
        (["--tls-cert", "/etc/passwd"], 1, "the certificate /etc/passwd"),
    ],
)
def test_it_says_why_it_does_not_serve(
    service_directory: Path, options: list[str], status: int, complaint: str
) -> None:
    environ = {**os.environ, "SANDBOX_ROOT": str(service_directory / "state")}
    done = subprocess.run([*_MAIN, *options], env=environ, capture_output=True, text=True)
    assert done.returncode == status
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
