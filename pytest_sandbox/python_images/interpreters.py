"""The Python interpreters of this machine: the system's, pyenv's and uv's. None is downloaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Origin = Literal["any", "host", "uv"]

_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,2})?", re.ASCII)
_PATIENCE = 60
_PROBE = """
import json, os, sys
own = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print(json.dumps([".".join(map(str, sys.version_info[:3])), sys.base_prefix, own]))
"""


class Interpreter(NamedTuple):
    """`version` is MAJOR.MINOR.PATCH, `executable` a path without links."""

    version: str
    prefix: str
    executable: str

    @property
    def identity(self) -> str:
        """Changes when the interpreter is another one, at the same place too."""
        status = os.stat(self.executable)
        return f"{self.version} {self.executable} {status.st_size} {status.st_mtime_ns}"

    @property
    def is_on_host(self) -> bool:
        """Whether the image `host` shows it: what is not in a home directory."""
        return self.prefix == "/usr" or self.prefix.startswith(("/usr/", "/opt/"))


def find_interpreter(version: str, origin: Origin = "any") -> Interpreter:
    """The interpreter of `version`, MAJOR.MINOR or MAJOR.MINOR.PATCH; uv's before the host's.

    Raises BadRequest for what is no version, NotFound that says where it was looked for.
    """
    from pytest_sandbox.errors import BadRequest, NotFound

    if not _VERSION.fullmatch(version):
        raise BadRequest(f"python {version}", "a version is needed, such as 3.13 or 3.13.1")
    places = []
    for candidate in _candidates(version, origin):
        places.append(candidate)
        found = interpreter_at(candidate)
        if found is not None and f"{found.version}.".startswith(f"{version}."):
            return found
    looked = ", ".join(dict.fromkeys(str(place) for place in places)) or "uv and pyenv know none"
    raise NotFound(
        f"No Python {version} on this machine",
        f"looked on PATH, in /usr, in pyenv's versions and uv's store: {looked}",
        f"uv python install {version}",
    )


def _candidates(version: str, origin: Origin) -> Iterator[Path]:
    minor = ".".join(version.split(".")[:2])
    if origin in ("any", "uv"):
        yield from _of_uv(version, minor)
    if origin in ("any", "host"):
        yield from _of_host(version, minor)


def _of_uv(version: str, minor: str) -> Iterator[Path]:
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", "--system", version]
        found = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        if found.returncode == 0 and found.stdout.strip():
            yield Path(found.stdout.strip())
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    store = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or f"{data}/uv/python")
    yield from _newest_first(store.glob(f"cpython-{version}*/bin/python{minor}"))


def _of_host(version: str, minor: str) -> Iterator[Path]:
    found = shutil.which(f"python{minor}")
    if found and Path(found).parent.name != "shims":  # pyenv's, which are slow and choose by cwd
        yield Path(found)
    yield from (Path(place, f"python{minor}") for place in ("/usr/bin", "/usr/local/bin"))
    versions = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")) / "versions"
    yield from _newest_first(versions.glob(f"{version}*/bin/python{minor}"))


def _newest_first(found: Iterator[Path]) -> list[Path]:
    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.parts[-3])]

    return sorted(found, key=version, reverse=True)


def interpreter_at(candidate: Path) -> Interpreter | None:
    """What the program says about itself; None for one that does not run here."""
    try:
        command = [str(candidate), "-I", "-S", "-c", _PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        return Interpreter(*json.loads(done.stdout)) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError):
        return None
