"""What a list of requirements amounts to, with hashes, and its installation into a directory.

uv resolves where it is installed, else the interpreter's own pip. The answer is kept for a day
beside the user's other caches: the same list does not ask an index at every run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_sandbox.python_images.interpreters import Interpreter

if TYPE_CHECKING:
    from pytest_sandbox.errors import NoSuchImage

FRESH = 24 * 3600.0
"""Seconds for which a resolution counts without asking again."""

_PATIENCE = 1800
_TOOLS = ("PIP_", "UV_")


def read_requirements(path: Path) -> tuple[str, ...]:
    """The lines of a requirements file, those of files that it names by `-r` among them.

    Raises OSError, BadRequest for a line that names something besides packages.
    """
    return tuple(_lines(path, frozenset()))


def _lines(path: Path, above: frozenset[Path]) -> Iterator[str]:
    from pytest_sandbox.errors import BadRequest

    if path in above:
        raise BadRequest(f"requirements {path}", "it includes itself")
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        text = line.partition(" #")[0].strip()
        option, _, rest = text.partition(" ")
        if not text or text.startswith("#"):
            continue
        if option in ("-r", "--requirement"):
            yield from _lines(path.parent / rest.strip(), above | {path})
        else:
            yield text


def resolved(
    interpreter: Interpreter,
    requirements: Sequence[str],
    *,
    refresh: bool = False,
    offline: bool = False,
) -> tuple[str, ...]:
    """Every package that the requirements amount to, pinned with its hashes, sorted.

    An `offline` answer may be of any age; NoSuchImage where there is none. Raises BadRequest with
    the tool's own words, and for editable or local packages, which have no hash.
    """
    _refuse_unhashable(requirements)
    kept = cache_directory("resolved") / f"{_text_key(interpreter, requirements)}.json"
    found = _known(kept, float("inf") if offline else FRESH)
    if found is not None and (offline or not refresh):
        return found
    if offline:
        raise not_here(requirements)
    lines = tuple(sorted(_asked(interpreter, requirements)))
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
        json.dump(lines, file)
    os.replace(file.name, kept)
    return lines


def not_here(requirements: Sequence[str]) -> NoSuchImage:
    """The error of a run that may fetch nothing."""
    from pytest_sandbox.errors import NoSuchImage

    what = f"No such image: with the requirements {', '.join(requirements)[:200]}"
    return NoSuchImage(what, "--sandbox-offline, and they were not installed here before")


def install(interpreter: Interpreter, lines: Sequence[str], target: Path) -> None:
    """Put the resolved packages into the directory `target`. Raises BadRequest."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        if uv := shutil.which("uv"):
            command = [uv, "pip", "install", "--python", interpreter.executable, "--quiet"]
            command += ["--link-mode", "copy", "--compile-bytecode"]
        else:
            command = [*_pip(interpreter), "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--target", str(target), "-r", file.name]
        _run(command, "install the requirements")


def _asked(interpreter: Interpreter, requirements: Sequence[str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        if uv := shutil.which("uv"):
            command = [uv, "pip", "compile", "--python", interpreter.executable, "--quiet"]
            command += ["--generate-hashes", "--no-header", "--no-annotate", file.name]
            for line in _run(command, _RESOLVE).replace("\\\n", " ").splitlines():
                yield " ".join(line.split())
            return
        command = [*_pip(interpreter), "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--disable-pip-version-check", "--report", "-", "-r", file.name]
        for entry in json.loads(_run(command, _RESOLVE))["install"]:
            yield pinned(entry)


_RESOLVE = "resolve the requirements"


def pinned(entry: Mapping[str, Any]) -> str:
    """A line for one package of pip's report: pip.pypa.io, "Installation Report"."""
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    source = entry["download_info"]
    known = source.get("archive_info", {}).get("hashes", {}).get("sha256")
    found = known or _hash_of_file(source["url"])
    if not found:
        from pytest_sandbox.errors import BadRequest

        raise BadRequest(f"requirement {name}", "its source has no hash to tell it by", _MEND)
    return f"{name}=={version} --hash=sha256:{found}"


def _hash_of_file(url: str) -> str:
    """Of a wheel or archive of this machine, which an older pip reports without one."""
    path = Path(unquote(urlsplit(url).path))
    if not url.startswith("file:") or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_unhashable(requirements: Sequence[str]) -> None:
    from pytest_sandbox.errors import BadRequest

    for line in requirements:
        if line.startswith(("-e", "--editable", "-c", "--constraint", ".", "/")) or "file:" in line:
            raise BadRequest(
                f"requirement {line!r}", "only packages from an index make a layer", _MEND
            )


_MEND = "mount the sources into the container, or build a wheel and install it there"


def _pip(interpreter: Interpreter) -> list[str]:
    """pip, by the interpreter's own module or by ours acting for it."""
    probe = [interpreter.executable, "-I", "-c", "import pip"]
    if subprocess.run(probe, capture_output=True, timeout=60).returncode == 0:
        return [interpreter.executable, "-I", "-m", "pip"]
    return [sys.executable, "-m", "pip", "--python", interpreter.executable]


def _run(command: Sequence[str], what: str) -> str:
    from pytest_sandbox.errors import BadRequest, HostLacks

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except OSError as error:
        raise HostLacks(what, str(error), "install uv, or pip for this interpreter") from error
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise BadRequest(f"{what}: {os.path.basename(command[0])} failed", said)
    return done.stdout


def _text_key(interpreter: Interpreter, requirements: Sequence[str]) -> str:
    settings = {name: value for name, value in os.environ.items() if name.startswith(_TOOLS)}
    tool = shutil.which("uv") or "pip"
    described = [interpreter.identity, sorted(requirements), settings, tool]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _known(kept: Path, fresh: float) -> tuple[str, ...] | None:
    try:
        if time.time() - kept.stat().st_mtime > fresh:
            return None
        return tuple(json.loads(kept.read_text()))
    except (OSError, ValueError):
        return None


def cache_directory(name: str) -> Path:
    """A directory of this user's for things that may be lost. Raises OSError."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(base, "pytest-sandbox", name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
