"""`sandboxctl image python`, and `image(python=…)` in a conftest: interpreters of this machine.

Packages come from a directory of wheels that the test makes: no index is asked.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox import BadRequest, NotFound, connect
from pytest_sandbox.python_images import python_image
from pytest_sandbox.python_images.interpreters import find_interpreter
from tests.pytest_sandbox.cli.conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_pip]

MakeWheel = Callable[..., Path]

_ENTRY = "[console_scripts]\ntell = {name}:main\n"
_CODE = "import sys\n\ndef main():\n    print('{name}', sys.prefix)\n"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks; what was resolved before is forgotten."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_REQUIRE_VIRTUALENV"):
        monkeypatch.delenv(name, raising=False)
    return directory


@pytest.fixture
def wheel(wheels: Path) -> MakeWheel:
    """Makes a package of one module with a program `tell`, which may require others."""

    def make(name: str, version: str = "1.0", requires: str = "") -> Path:
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += f"Requires-Dist: {requires}\n" if requires else ""
        files = {
            f"{name}.py": _CODE.format(name=name),
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": _ENTRY.format(name=name),
        }
        record = [f"{path},{_digest(text)},{len(text)}" for path, text in files.items()]
        files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
        path = wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in files.items():
                archive.writestr(member, text)
        return path

    return make


def _digest(text: str) -> str:
    raw = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={raw.decode().rstrip('=')}"


@pytest.fixture(
    params=[
        pytest.param("system", marks=pytest.mark.needs_system_python),
        pytest.param("home", marks=pytest.mark.needs_home_python),
    ]
)
def version(request: pytest.FixtureRequest) -> str:
    """MAJOR.MINOR of the system's interpreter, and of one in this user's home directory."""
    found: str = request.getfixturevalue(f"{request.param}_python")
    return found


def test_an_interpreter_with_what_it_requires(
    sandboxctl: Sandboxctl, wheel: MakeWheel, wheels: Path, tmp_path: Path, version: str
) -> None:
    wheel("first", requires="second>=1")
    wheel("second", "1.5")
    (tmp_path / "more.txt").write_text("first  # and what it needs\n")
    listed = tmp_path / "requirements.txt"
    listed.write_text("# ours\n-r more.txt\n")
    ours = {name: os.environ[name] for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "XDG_CACHE_HOME")}
    environ = {**sandboxctl.environ, **ours}
    command = Sandboxctl(environ)
    arguments = ("image", "python", version, "--requirements", str(listed), "-t", "our-python:1")
    name = command.ok(*arguments).strip()
    assert name.startswith(f"python:{version}.")
    assert "-host-" in name

    code = "import first, second, sys; print(sys.version_info[:2], sys.prefix)"
    shown = command.ok("run", "--rm", "--user", "1000", "our-python:1", "python", "-c", code)
    minor = tuple(map(int, version.split(".")))
    assert shown == f"{minor} /opt/python/env\n"
    assert command.ok("run", "--rm", name, "tell") == "first /opt/python/env\n"

    shutil.rmtree(wheels)
    assert command.ok(*arguments).strip() == name, "the wheels are gone: pip would fail"
    done = command(*arguments, "--refresh")
    assert done.returncode == 1
    assert b"resolve the requirements" in done.stderr


@pytest.mark.needs_system_python
def test_another_list_with_the_same_result_is_the_same_image(
    sandboxctl: Sandboxctl, wheel: MakeWheel, system_python: str
) -> None:
    wheel("first", requires="second")
    wheel("second")
    with connect(sandboxctl.environ["SANDBOX_HOST"], autostart=False) as client:
        made = python_image(client, system_python, ["first"])
        layers = client.image_inspect(made.reference)["RootFS"]["Layers"]
        assert [line.partition(" ")[0] for line in made.packages] == ["first==1.0", "second==1.0"]
        assert python_image(client, system_python, ["second>=1", "first==1.0"]) == made
        assert python_image(client, system_python, ["first"], offline=True) == made
        wheel("second", "2.0")
        assert python_image(client, system_python, ["first"]) == made
        other = python_image(client, system_python, ["first"], refresh=True)
        assert other.reference != made.reference
        assert client.image_inspect(other.reference)["RootFS"]["Layers"][:-1] == layers[:-1]
        with pytest.raises(NotFound, match="offline"):
            python_image(client, system_python, ["second"], offline=True)
        for name in (made.reference, other.reference):
            client.image_remove(name)


@pytest.mark.needs_system_python
@pytest.mark.parametrize(
    ("requirements", "why"),
    [
        (["missing-package"], "No matching distribution|no version"),
        (["-e ."], "only packages from an index"),
        (["./here"], "only packages from an index"),
        (["first @ file:///tmp/first"], "only packages from an index"),
        (["!"], "nvalid requirement"),
    ],
)
def test_requirements_that_cannot_be_met(
    sandboxctl: Sandboxctl, wheels: Path, system_python: str, requirements: list[str], why: str
) -> None:
    client = connect(sandboxctl.environ["SANDBOX_HOST"], autostart=False)
    with client, pytest.raises(BadRequest, match=why):
        python_image(client, system_python, requirements)


def test_an_interpreter_that_is_not_here(sandboxctl: Sandboxctl) -> None:
    done = sandboxctl("image", "python", "3.99")
    assert done.returncode == 1
    assert b"No Python 3.99 on this machine" in done.stderr
    assert b"uv python install 3.99" in done.stderr
    assert sandboxctl("image", "python", "2.7; rm -rf /").returncode == 1
    with pytest.raises(NotFound):
        find_interpreter("3.99")
