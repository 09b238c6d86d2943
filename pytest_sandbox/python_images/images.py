"""From an interpreter and resolved requirements to an image: two small builds, each made once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox.python_images import requirements as packages
from pytest_sandbox.python_images.interpreters import Interpreter, Origin, find_interpreter

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

ENVIRONMENT = "/opt/python/env"
_LABEL = "io.pytest-sandbox.python"
_LEFT_OUT = (
    "lib/python3*/site-packages/*",
    "lib/python3*/test",
    "lib/python3*/config-*",
    "share",
    # Programs of packages that are not there: what does not begin with `pyth`.
    *("bin/[^p]*", "bin/p[^y]*", "bin/py[^t]*", "bin/pyt[^h]*"),
)
"""Of an interpreter's prefix: its own packages, its test suite, its static library."""
_BY_SHELL = re.compile(rb"\A#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
_BY_PYTHON = re.compile(rb"\A#![^\n]*python[^\n]*\n")
_SHEBANG = f"#!{ENVIRONMENT}/bin/python\n".encode()


class PythonImage(NamedTuple):
    """A finished image: its name, the interpreter's version, the resolved packages."""

    reference: str
    version: str
    packages: tuple[str, ...]


def python_image(
    client: Client,
    version: str,
    requirements: Sequence[str] = (),
    *,
    origin: Origin = "any",
    refresh: bool = False,
    offline: bool = False,
) -> PythonImage:
    """The image `python:VERSION-host`, or `python:VERSION-host-KEY` with requirements in it.

    Made where it is missing; KEY is a digest of the interpreter and of every resolved package with
    its hashes. `refresh` resolves anew, `offline` asks no index: NoSuchImage for requirements that
    were not installed before. Raises NotFound for an interpreter that is not here, BadRequest for
    requirements that cannot be met and an interpreter that does not run there.
    """
    interpreter = find_interpreter(version, origin)
    base = interpreter_image(client, interpreter)
    if not requirements:
        return PythonImage(base, interpreter.version, ())
    lines = packages.resolved(interpreter, requirements, refresh=refresh, offline=offline)
    key = hashlib.sha256("\n".join([interpreter.identity, *lines]).encode()).hexdigest()
    name = f"{base}-{key[:12]}"
    with one_at_a_time(key):
        if _label(client, name) != key:
            if offline:
                raise packages.not_here(requirements)
            _build_environment(client, interpreter, lines, base, name, key)
    return PythonImage(name, interpreter.version, lines)


def interpreter_image(client: Client, interpreter: Interpreter) -> str:
    """The name of the image of an interpreter alone, made where it is missing."""
    with one_at_a_time(f"python-{interpreter.version}"):
        return _interpreter_image(client, interpreter)


def _interpreter_image(client: Client, interpreter: Interpreter) -> str:
    name = f"python:{interpreter.version}-host"
    if _label(client, name) == interpreter.identity:
        return name
    label = f"LABEL {_LABEL}={json.dumps(interpreter.identity)}"
    if interpreter.is_on_host:
        with tempfile.TemporaryDirectory() as context:
            _link_programs(Path(context), interpreter)
            text = f"FROM host\nCOPY . /opt/python/bin/\nENV PATH=/opt/python/bin:$PATH\n{label}\n"
            _build(client, Path(context), text, name)
    else:
        excluded = " ".join(f"--exclude={pattern}" for pattern in _LEFT_OUT)
        prefix = interpreter.prefix
        # Home directories are closed to others, and the container's user may be one.
        above = [str(path) for path in reversed(Path(prefix).parents) if path != Path("/")]
        text = (
            f"FROM host\nCOPY {excluded} . {prefix}/\nRUN {json.dumps(['chmod', 'a+x', *above])}\n"
            f"ENV PATH={prefix}/bin:$PATH\n{label}\n"
        )
        _build(client, Path(prefix), text, name)
    _try_out(client, name, interpreter.version)
    return name


def _build_environment(
    client: Client,
    interpreter: Interpreter,
    lines: Sequence[str],
    base: str,
    name: str,
    key: str,
) -> None:
    with tempfile.TemporaryDirectory() as context:
        root = Path(context)
        minor = ".".join(interpreter.version.split(".")[:2])
        site = root / "lib" / f"python{minor}" / "site-packages"
        site.mkdir(parents=True)
        packages.install(interpreter, lines, site)
        _link_programs(root / "bin", interpreter)
        _move_scripts(site / "bin", root / "bin")
        home = os.path.dirname(interpreter.executable)
        settings = {"home": home, "include-system-site-packages": "false", "version": minor}
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (root / "pyvenv.cfg").write_text(text)
        dockerfile = (
            f"FROM {base}\nCOPY . {ENVIRONMENT}/\nENV VIRTUAL_ENV={ENVIRONMENT}"
            f" PATH={ENVIRONMENT}/bin:$PATH\nLABEL {_LABEL}={key}\n"
        )
        _build(client, root, dockerfile, name)
    _try_out(client, name, interpreter.version)


def _link_programs(place: Path, interpreter: Interpreter) -> None:
    place.mkdir(exist_ok=True)
    minor = ".".join(interpreter.version.split(".")[:2])
    for name in ("python", "python3", f"python{minor}"):
        (place / name).symlink_to(interpreter.executable)


def _move_scripts(source: Path, target: Path) -> None:
    """A package's programs, started by the environment's interpreter and no longer by ours."""
    for script in sorted(source.iterdir()) if source.is_dir() else ():
        if script.is_file() and not script.is_symlink():
            content = script.read_bytes()
            moved = _BY_PYTHON.sub(_SHEBANG, _BY_SHELL.sub(_SHEBANG, content, count=1), count=1)
            if moved != content:
                script.write_bytes(moved)
        if not os.path.lexists(target / script.name):
            script.rename(target / script.name)


def _build(client: Client, context: Path, text: str, name: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="Dockerfile-") as file:
        file.write(text)
        file.flush()
        client.build(context, dockerfile=file.name, tag=name)


def _try_out(client: Client, name: str, version: str) -> None:
    """Raises BadRequest, and takes the name away, when the image's `python` does not run."""
    from pytest_sandbox.errors import BadRequest

    script = "import hashlib, sys, zlib; print('.'.join(map(str, sys.version_info[:3])))"
    done = client.run(name, ["python", "-I", "-c", script])
    if done.stdout.decode(errors="replace").strip() != version:
        client.image_remove(name, force=True)
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise BadRequest(f"image {name}", f"its interpreter does not run: {said}")


def _label(client: Client, name: str) -> str:
    from pytest_sandbox.errors import NoSuchImage

    try:
        labels = client.image_inspect(name)["Config"]["Labels"] or {}
    except NoSuchImage:
        return ""
    return str(labels.get(_LABEL, ""))


def one_at_a_time(key: str) -> AbstractContextManager[object]:
    """Against the other workers of a test run, and other runs of this user."""
    from filelock import FileLock

    return FileLock(packages.cache_directory("locks") / f"{key}.lock")
