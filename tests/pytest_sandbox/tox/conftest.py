"""Projects that real toxes run, with packages of their own: no index is asked."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import Client, connect

if TYPE_CHECKING:
    from tests.conftest import Service

_BACKEND = """
import base64, hashlib, os, zipfile

def _wheel(directory, files):
    name, dist = "mypkg-1.0-py3-none-any.whl", "mypkg-1.0.dist-info"
    files[dist + "/METADATA"] = (
        "Metadata-Version: 2.1\\nName: mypkg\\nVersion: 1.0\\nRequires-Dist: beta\\n"
    )
    files[dist + "/WHEEL"] = (
        "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    )
    record = "".join("%s,,\\n" % each for each in files) + dist + "/RECORD,,\\n"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
        archive.writestr(dist + "/RECORD", record)
    return name

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {"mypkg/__init__.py": open("src/mypkg/__init__.py").read()})

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {"mypkg.pth": os.path.abspath("src")})

def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit("no sdist")
"""
_FAKE_TOX = "import os, sys\nprint('provisioned', os.environ['TOX_ENV_NAME'], *sys.argv[1:])\n"


def make_wheel(
    directory: Path,
    name: str,
    version: str = "1.0",
    *,
    body: str = "",
    requires: Sequence[str] = (),
    main: str = "",
    script: str = "",
) -> Path:
    """A wheel of one module."""
    dist = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": body,
        f"{dist}/METADATA": metadata + "".join(f"Requires-Dist: {each}\n" for each in requires),
        f"{dist}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if main:
        files[f"{name}/__main__.py"] = main
    if script:
        files[f"{dist}/entry_points.txt"] = f"[console_scripts]\n{script} = {name}:main\n"
    lines = [f"{each},{_digest(text)},{len(text)}\n" for each, text in files.items()]
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in files.items():
            archive.writestr(each, text)
        archive.writestr(f"{dist}/RECORD", "".join(lines) + f"{dist}/RECORD,,\n")
    return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """alpha, which needs beta; a build backend for a project `mypkg`; a tox that says its words."""
    directory = tmp_path_factory.mktemp("wheels")
    shown = "def main(): print('alpha', __file__)\n"
    make_wheel(directory, "alpha", body=shown, requires=["beta"], script="alpha")
    make_wheel(directory, "beta")
    make_wheel(directory, "gamma")
    make_wheel(directory, "backend", body=_BACKEND)
    make_wheel(directory, "tox", "99.0", main=_FAKE_TOX)
    return directory


@dataclass
class Project:
    """A directory with a tox.toml, and how tox is called there."""

    path: Path
    environ: Mapping[str, str]
    client: Client
    python: str

    def configure(self, **envs: Mapping[str, Any]) -> None:
        """Write the tox.toml: a table for each environment, `base` for what they share."""
        base = {"runner": "sandbox", "base_python": [self.python], "deps": ["alpha"]}
        tables = {"env_run_base": {**base, **envs.pop("base", {})}}
        tables |= {f"env.{name}": dict(values) for name, values in envs.items()}
        names = [name for name in envs if not name.startswith(".")]
        text = f"env_list = {names}\n"
        for name, values in tables.items():
            text += f"[{name}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in values.items())
        (self.path / "tox.toml").write_text(text)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "tox", *args]

    def tox(self, *args: str, code: int = 0, **environ: str) -> str:
        """Standard output and error of a run that ends with this exit code."""
        done = subprocess.run(
            self.command(*(args or ("run",))),
            cwd=self.path,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=110,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def layers(self) -> set[str]:
        """The layers that the service has."""
        tags = {tag for image in self.client.images() for tag in image.tags}
        return {tag for tag in tags if tag.startswith("tox:")}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return "'''" + str(value) + "'''"


@pytest.fixture(scope="session")
def tox_service(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for tox: the shared service, caches of these tests, no index."""
    home = tmp_path_factory.mktemp("home")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "TOX_", "PYTEST_", "COV_", "VIRTUALENV_", "CI"))
    }
    return {
        **kept,
        "SANDBOX_HOST": service.host,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "NO_COLOR": "1",
    }


@pytest.fixture
def project(
    tox_service: dict[str, str],
    wheelhouse: Path,
    service: Service,
    system_python: str,
    tmp_path: Path,
) -> Iterator[Project]:
    links = {"PIP_FIND_LINKS": str(wheelhouse), "UV_FIND_LINKS": str(wheelhouse)}
    path = tmp_path / "project"
    (path / "src" / "mypkg").mkdir(parents=True)
    with connect(service.host, autostart=False) as client:
        yield Project(path, {**tox_service, **links}, client, f"/usr/bin/python{system_python}")


@pytest.fixture
def packaged(project: Project) -> Project:
    """A project with something to build."""
    (project.path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["backend"]\nbuild-backend = "backend"\n'
        '[project]\nname = "mypkg"\nversion = "1.0"\n'
    )
    (project.path / "src/mypkg/__init__.py").write_text("VALUE = 1\n")
    return project
