"""Debian's docker-registry on loopback, empty, for as long as a block runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import found


@contextlib.contextmanager
def running(work: Path) -> Iterator[str]:
    """Its HOST:PORT. Raises Absent; what it has stored is deleted at the end."""
    program = found("docker-registry")
    base = Path(tempfile.mkdtemp(prefix="registry-", dir=work))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = os.environ | {
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(base / "data"),
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_LOG_LEVEL": "error",
        "OTEL_TRACES_EXPORTER": "none",
    }
    config = base / "config.yml"
    config.write_text("version: 0.1\nstorage: {filesystem: {}}\nhttp: {addr: x}\n")
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(config)], env=environ, stdout=log, stderr=log
        )
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise RuntimeError(f"docker-registry: {(base / 'log').read_text()}")
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(base, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
