"""Registries to pull from: a scripted one, and Debian's docker-registry."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sandboxd.images.registry.scripted import ScriptedRegistry


@pytest.fixture(autouse=True)
def quick_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of the test's own: three attempts, hardly a pause between them."""
    path = tmp_path / "registries.toml"
    path.write_text("[network]\nattempts = 3\nbackoff = 0.001\ntimeout = 10\n")
    monkeypatch.setenv("SANDBOX_REGISTRIES", str(path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return path


@pytest.fixture
def scripted() -> Callable[[], AbstractContextManager[ScriptedRegistry]]:
    """Makes a scripted registry; call it where the test's body runs, which may be a child."""
    return lambda: closing(ScriptedRegistry())


@dataclass
class DockerRegistry:
    """A running docker-registry. `user` and `password` are empty where it lets everybody in."""

    authority: str
    user: str = ""
    password: str = ""

    def copy_from(self, layout: Path, name: str) -> None:
        """Push the image `1` of an OCI layout, with skopeo."""
        command = ["skopeo", "copy", "-q", "--dest-tls-verify=false"]
        if self.user:
            command += ["--dest-creds", f"{self.user}:{self.password}"]
        target = f"docker://{self.authority}/{name}"
        subprocess.run([*command, f"oci:{layout}:1", target], check=True)


@contextmanager
def _serving(base: Path, **environ: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = base / "config.yml"
    config.write_text("version: 0.1\nstorage: {filesystem: {}}\nhttp: {addr: x}\n")
    own = {
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(base / "data"),
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_LOG_LEVEL": "error",
    }
    with open(base / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            env={**os.environ, **own, **environ},
            stdout=log,
            stderr=log,
        )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (base / "log").read_text()
                time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """One that lets everybody in; the test is marked needs_registry."""
    with _serving(tmp_path_factory.mktemp("registry")) as authority:
        yield DockerRegistry(authority)


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """One that lets in alice with her password alone."""
    base = tmp_path_factory.mktemp("locked")
    (base / "htpasswd").write_text(f"alice:{_BCRYPT}\n")
    environ = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "here",
        "REGISTRY_AUTH_HTPASSWD_PATH": str(base / "htpasswd"),
    }
    with _serving(base, **environ) as authority:
        yield DockerRegistry(authority, "alice", "wonderland")


@pytest.fixture(scope="module")
def tls_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DockerRegistry, Path]]:
    """One that speaks TLS, with the certificate of the authority that it says who it is by."""
    base = tmp_path_factory.mktemp("tls")
    certificate, key = base / "own-ca.pem", base / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", key, "-out", certificate, "-days", "2"),
            *("-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    tls = {"CERTIFICATE": str(certificate), "KEY": str(key)}
    with _serving(base, **{f"REGISTRY_HTTP_TLS_{name}": path for name, path in tls.items()}) as at:
        yield DockerRegistry(at), certificate


_BCRYPT = "$2y$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu"
"""bcrypt of `wonderland`, cost 4: docker-registry takes no other kind."""
