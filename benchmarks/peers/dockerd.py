"""A private dockerd: own directories, own socket, no bridge, no firewall rule, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, command, found
from benchmarks.rootfs import IMAGE

NAME = "docker run --rm"
_START_LIMIT = 30.0


@dataclass(frozen=True)
class Daemon:
    host: str
    """The value for DOCKER_HOST."""
    cli: str

    def import_image(self, archive: Path, reference: str, *changes: str) -> None:
        """`docker import`, with Dockerfile instructions such as "USER postgres" in `changes`."""
        options = [part for change in changes for part in ("--change", change)]
        argv = [self.cli, "-H", self.host, "import", *options, str(archive), reference]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def running(work: Path) -> Iterator[Daemon]:
    """Start dockerd (root only), wait until it answers; at the end stop it and its containerd."""
    if os.geteuid() != 0:
        raise Absent("dockerd is started here as root only")
    cli, dockerd = found("docker"), found("dockerd")
    base = work / "dk"
    base.mkdir()
    host = f"unix://{base}/docker.sock"
    argv = [dockerd, "--host", host, "--data-root", str(base / "data")]
    argv += ["--exec-root", str(base / "exec"), "--pidfile", str(base / "pid")]
    argv += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(process, cli, host, base / "log")
        yield Daemon(host, cli)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def one_shot(daemon: Daemon) -> Subject:
    argv = [daemon.cli, "-H", daemon.host, "run", "--rm", "--network", "none", IMAGE, "/bin/true"]
    return Subject(NAME, command(argv), every=10)


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], cli: str, host: str, log: Path
) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        answer = subprocess.run([cli, "-H", host, "version"], capture_output=True)
        if answer.returncode == 0:
            return
        time.sleep(0.1)
    raise Absent(f"dockerd does not start here: {log.read_text(errors='replace')[-400:].strip()}")
