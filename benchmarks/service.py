"""A private sandbox service for the benchmark: own state, own socket, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_sandbox import Client, connect

_REMOVE = """
import shutil, sys
from sandboxd.linux import idmap

idmap.enter_outer_namespace(idmap.choose())  # files in there may belong to subordinate ids
shutil.rmtree(sys.argv[1])
"""


@dataclass(frozen=True)
class Service:
    """`environ` holds what a process needs to reach this service as its own."""

    pid: int
    socket: Path
    root: Path
    environ: dict[str, str]

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def connect(self) -> Client:
        return connect(self.host, autostart=False)


@contextlib.contextmanager
def running(work: Path) -> Iterator[Service]:
    """Start `sandboxd serve` with the interpreter that runs the benchmark; stop it by SIGTERM."""
    try:
        with started(work) as service:
            yield service
    finally:
        remove(work)


@contextlib.contextmanager
def started(work: Path) -> Iterator[Service]:
    """The same, but what it leaves below `work` stays, for `remove` to delete later."""
    path, root = work / "run" / "docker.sock", work / "state"
    environ = os.environ | {
        "SANDBOX_HOST": f"unix://{path}",
        "SANDBOX_ROOT": str(root),
        "SANDBOX_IDLE": "0",
    }
    ready, told = os.pipe()
    argv = [sys.executable, "-m", "sandboxd", "serve", "--ready-fd", str(told)]
    with (work / "service.log").open("ab") as log:
        process = subprocess.Popen(argv, env=environ, pass_fds=[told], stdout=log, stderr=log)
    os.close(told)
    with open(ready) as pipe:
        line = pipe.readline()
    try:
        if line != "ready\n":
            raise RuntimeError(f"sandboxd: {line or (work / 'service.log').read_text()}")
        yield Service(process.pid, path, root, environ)
    finally:
        process.terminate()
        process.wait(timeout=60)


def remove(work: Path) -> None:
    """Delete the state of a service that was started there."""
    subprocess.run([sys.executable, "-c", _REMOVE, str(work / "state")], check=True)
