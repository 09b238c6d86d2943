"""The second tox run of a matrix of six environments over one project, up to its first command.

Every run finds what the first one left: layers, or virtualenvs that are kept or recreated. The
packages come from a directory, so that no index's speed counts; the project's wheel is built anew
in each run, as tox does. Each subject has run once before, which is not counted.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.consumption import cpu_seconds
from benchmarks.peers import Absent
from benchmarks.result import OURS, Goal, Result, Row

RECREATED = "tox, virtualenvs recreated"
KEPT = "tox, virtualenvs kept"
_WHOLE = ", all six environments"
_CPU = ", CPU"
_PACKAGES = ("pytest", "attrs", "requests", "jinja2", "hatchling")
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "matrix"
version = "1.0"
dependencies = ["attrs"]
"""
_CONFIGURATION = """\
env_list = ["a", "b", "c", "d", "e", "f"]
[env_run_base]
runner = "{runner}"
package = "wheel"
deps = ["pytest"]
commands = [["python", "-c", "import time, attrs, matrix; print('began', time.time())"]]
[env.b]
deps = ["pytest", "requests"]
[env.c]
deps = ["pytest", "jinja2"]
[env.d]
deps = ["pytest", "requests", "jinja2"]
[env.e]
deps = ["pytest", "jinja2", "requests"]
"""


def measure(bench: Bench) -> Result:
    result = Result("tox-matrix", "the second tox run of six environments: its first command")
    whole: dict[str, list[float]] = {}
    peers: dict[str, Callable[[], Subject]] = {
        OURS: lambda: _subject(bench, OURS, "sandbox", whole),
        RECREATED: lambda: _subject(bench, RECREATED, "virtualenv", whole, "-r", every=2),
        KEPT: lambda: _subject(bench, KEPT, "virtualenv", whole),
    }
    result.rows = alternate(present(result, peers), 2 if bench.quick else 8, warm_up=0)
    result.goals = [
        Goal("times sooner than recreated", result.ratio(RECREATED, OURS), 10, at_most=False),
        Goal("times the time of kept ones", result.ratio(OURS, KEPT), 1.0, at_most=True),
    ]
    result.rows += [Row(name, samples) for name, samples in sorted(whole.items())]
    return result


def _subject(
    bench: Bench,
    name: str,
    runner: str,
    whole: dict[str, list[float]],
    *options: str,
    every: int = 1,
) -> Subject:
    if find_spec("tox") is None:
        raise Absent("tox is not installed")
    environ = {**_environment(bench), "PIP_FIND_LINKS": str(_wheels(bench.work / "wheels"))}
    project = bench.work / f"matrix-{name.replace(' ', '-').replace(',', '')}"
    (project / "src" / "matrix").mkdir(parents=True)
    (project / "src/matrix/__init__.py").write_text("")
    (project / "pyproject.toml").write_text(_PROJECT)
    (project / "tox.toml").write_text(_CONFIGURATION.format(runner=runner))
    _run(project, environ)  # the first: whatever is to be kept is there afterwards

    def run() -> float:
        service = bench.service.pid
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        of_service = cpu_seconds(service)
        began = time.time()
        starts = _run(project, environ, *options)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        cpu += cpu_seconds(service) - of_service
        whole.setdefault(name + _WHOLE, []).append(time.time() - began)
        whole.setdefault(name + _CPU, []).append(cpu)
        return starts[0] - began

    return Subject(name, run, every=every)


def _environment(bench: Bench) -> dict[str, str]:
    home = bench.work / "home"
    home.mkdir(exist_ok=True)
    left_out = ("PIP_", "UV_", "TOX_", "VIRTUALENV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PIP_NO_INDEX": "1"}
    return {**kept, **bench.service.environ, **own}


def _wheels(directory: Path) -> Path:
    """What the environments install, fetched once. Raises Absent without an index."""
    if not directory.exists():
        directory.mkdir()
        command = [sys.executable, "-m", "pip", "download", "-q", "-d", str(directory), *_PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"no index: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return directory


def _run(project: Path, environ: Mapping[str, str], *options: str) -> list[float]:
    """When each environment's command began, in seconds since 1970."""
    command = [sys.executable, "-m", "tox", "run", *options]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"tox failed:\n{done.stdout}\n{done.stderr}")
    began = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("began ")]
    return [float(each) for each in began]
