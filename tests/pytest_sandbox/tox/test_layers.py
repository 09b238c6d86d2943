"""What is built when, and for whom."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.pytest_sandbox.tox.conftest import make_wheel

if TYPE_CHECKING:
    from tests.pytest_sandbox.tox.conftest import Project

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_tox,
    pytest.mark.needs_system_python,
]

PYTHON = ["python", "-c"]
SHOW = [*PYTHON, "import mypkg; print('{env_name} has', mypkg.VALUE, mypkg.__file__)"]


def test_the_package_as_a_wheel_editable_and_not_at_all(packaged: Project) -> None:
    packaged.configure(
        base={"commands": [SHOW, [*PYTHON, "import alpha, beta"]]},
        whl={"package": "wheel"},
        ed={"package": "editable"},
        sk={"package": "skip", "commands": [[*PYTHON, "import alpha"]]},
    )
    source = packaged.path / "src/mypkg/__init__.py"
    said = packaged.tox()
    assert "whl has 1 /opt/python/env/lib/python3" in said
    assert f"ed has 1 {source}" in said
    made = packaged.layers()
    packaged.tox()
    assert packaged.layers() == made
    source.write_text("VALUE = 2\n")
    said = packaged.tox()
    assert "whl has 2 " in said
    assert "ed has 2 " in said
    after = packaged.layers()
    assert len(after) == len(made)
    assert len(after - made) == 1  # the new wheel's; the old one's is gone


def test_dependencies_of_the_day_and_on_request_newer_ones(
    project: Project, wheelhouse: Path, tmp_path: Path
) -> None:
    index = tmp_path / "simple" / "gamma"
    index.mkdir(parents=True)
    shutil.copy(wheelhouse / "gamma-1.0-py3-none-any.whl", index)
    show = "import importlib.metadata as m; print('{env_name} gamma', m.version('gamma'))"
    project.configure(base={"deps": ["gamma"], "commands": [[*PYTHON, show]]}, a={})
    links: dict[str, Any] = {
        "PIP_NO_INDEX": "",
        "PIP_INDEX_URL": f"file://{_listed(index)}",
        "PIP_FIND_LINKS": "",
    }
    assert "a gamma 1.0" in project.tox("run", **links)
    make_wheel(index, "gamma", "1.1")
    _listed(index)
    assert "a gamma 1.0" in project.tox("run", **links)
    assert "a gamma 1.1" in project.tox("run", "--sandbox-refresh", **links)
    made = project.layers()
    assert "a gamma 1.1" in project.tox("run", "-r", **links)
    assert project.layers() == made
    # A directory of links is looked at each time: what is new there counts at once.
    make_wheel(index, "gamma", "1.2")
    assert "a gamma 1.2" in project.tox("run", PIP_FIND_LINKS=str(index))


def _listed(directory: Path) -> Path:
    """Write the directory's page in the index around it, PEP 503; the index."""
    links = "".join(f'<a href="{each.name}">{each.name}</a>' for each in directory.glob("*.whl"))
    (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return directory.parent


def test_requirements_files_constraints_and_source_directories(packaged: Project) -> None:
    (packaged.path / "requirements.txt").write_text("alpha\n-r more.txt\n")
    (packaged.path / "more.txt").write_text("gamma\n")
    (packaged.path / "constraints.txt").write_text("beta==1.0\n")
    show = [*PYTHON, "import importlib.metadata as m; print('has', m.version('gamma'))"]
    packaged.configure(
        base={"package": "skip"},
        files={"deps": ["-r requirements.txt", "-c constraints.txt"], "commands": [show]},
        tree={"deps": ["-e ."], "commands": [SHOW]},
    )
    before = packaged.layers()
    said = packaged.tox()
    assert "has 1.0" in said
    assert f"tree has 1 {packaged.path}/src/mypkg/__init__.py" in said
    made = packaged.layers()
    assert len(made - before) <= 2  # an empty environment, and that of the files
    (packaged.path / "constraints.txt").write_text("beta==2.0\n")
    said = packaged.tox("run", "-e", "files", code=1)
    assert "beta==2.0" in said
    assert packaged.layers() == made


def test_a_matrix_in_parallel_shares_layers_and_nothing_else(project: Project) -> None:
    script = (
        "import os, time; n = '{env_name}';"
        "assert not os.path.exists('mine'), os.listdir(); open('mine', 'w').write(n);"
        "assert not os.path.exists('/tmp/mine'); open('/tmp/mine', 'w').write(n);"
        "print('pids', len([p for p in os.listdir('/proc') if p.isdigit()]) < 6);"
        "print('own', open('mine').read() == n)"
    )
    names = ["a", "b", "c"]
    base = {"deps": ["alpha", "gamma"], "commands": [[*PYTHON, script]]}
    project.configure(base=base, **{name: {} for name in names})
    before = project.layers()
    said = project.tox("run-parallel", "--parallel-no-spinner", "-p", "3", "-o")
    assert said.count("own True") == said.count("pids True") == 3
    assert len(project.layers() - before) <= 2
    assert not (project.path / "mine").exists()


def test_an_image_of_ones_own(project: Project) -> None:
    with project.client.container("host", ["sh", "-c", "echo mark > /opt/mark"]) as k:
        k.start().wait()
        k.commit("own:image")
    show = [*PYTHON, "import alpha; print('found', open('/opt/mark').read())"]
    project.configure(
        base={"sandbox_image": "own:image", "commands": [["alpha"], show]},
        a={},
        b={"base_python": ["python3.4"]},
    )
    said = project.tox("run", "--skip-missing-interpreters", "true")
    assert "found mark" in said
    assert "alpha /opt/python/env" in said
    assert "b: SKIP" in said
    absent = project.path / "tox.toml"
    absent.write_text(absent.read_text().replace("own:image", "not/there:1"))
    assert "not/there" in project.tox("run", "-e", "a", code=1)


@pytest.fixture(scope="session")
def tox_uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tox-uv: it changes every tox that it is installed beside."""
    pytest.importorskip("uv")
    target = tmp_path_factory.mktemp("tox-uv")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(target), "tox-uv-bare"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tox-uv: {done.stderr}")
    return target


def test_by_uv_where_tox_uv_is_installed(packaged: Project, tox_uv: Path) -> None:
    packaged.configure(
        base={"commands": [SHOW]},
        whl={"package": "wheel", "deps": ["alpha", "gamma"]},
        ed={"package": "editable"},
        pip={"runner": "sandbox-pip", "package": "skip", "commands": [["alpha"]]},
    )
    said = packaged.tox("run", PYTHONPATH=str(tox_uv))
    assert "whl has 1 /opt/python/env/lib/python3" in said
    assert f"ed has 1 {packaged.path}/src/mypkg/__init__.py" in said
    assert "uv pip install alpha" in said
    assert "pip: install_deps> python -I -m pip install alpha" in said
    made = packaged.layers()
    packaged.tox("run", PYTHONPATH=str(tox_uv))
    assert packaged.layers() == made


def test_dependencies_from_an_index(project: Project) -> None:
    if subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-d",
            str(project.path),
            "iniconfig",
        ],
        capture_output=True,
    ).returncode:
        pytest.skip("no index is reached")
    project.configure(a={"deps": ["iniconfig"], "commands": [[*PYTHON, "import iniconfig"]]})
    project.environ = {**project.environ, "HOME": str(Path.home())}
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        project.environ.pop(name)
    assert "a: OK" in project.tox()
