"""What tox wants to know of interpreters: found once, and kept with the other caches."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_sandbox.python_images.interpreters import Interpreter, interpreter_at
from pytest_sandbox.python_images.requirements import cache_directory
from pytest_sandbox.tox.installing import digest

if TYPE_CHECKING:
    from tox.tox_env.python.api import PythonInfo

    from pytest_sandbox.client.session import Client

_PROBE: Final = """
import json, platform, sys, sysconfig
print(json.dumps({
    "implementation": platform.python_implementation(), "version": sys.version,
    "version_info": list(sys.version_info), "is_64": sys.maxsize > 2**32,
    "platform": sys.platform, "executable": sys.executable, "machine": platform.machine(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


def known_interpreter(executable: Path) -> Interpreter:
    """The interpreter at that path, asked when its file is another than before.

    Raises NotFound for a program that is none.
    """
    from pytest_sandbox.errors import NotFound

    status = os.stat(executable)
    key = digest([str(executable), status.st_size, status.st_mtime_ns])
    kept = cache_directory("interpreters") / key
    try:
        return Interpreter(*json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    found = interpreter_at(executable)
    if found is None:
        raise NotFound(f"No Python at {executable}", "the program does not answer as Python 3 does")
    _keep(kept, list(found))
    return found


def found_by(command: Sequence[str]) -> Path:
    """What a command that looks for an interpreter prints. NotFound when it finds none."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        from pytest_sandbox.errors import NotFound

        raise NotFound("No such Python", done.stderr.strip())
    return Path(os.path.realpath(done.stdout.strip()))


def python_of_image(client: Client, image: str, base_python: Sequence[str]) -> PythonInfo | None:
    """The `python3` of an image; None when `base_python` asks for another one.

    Raises NoSuchImage, StartFailed for an image without one.
    """
    from tox.tox_env.python.api import PythonInfo, VersionInfo

    about = _asked(client, image)
    major, minor, micro, level, serial = about["version_info"]
    facts: dict[str, Any] = {
        **about,
        "version_info": VersionInfo(major, minor, micro, level, serial),
        "extra": {"executable": Path(about["executable"])},
    }
    found = PythonInfo(
        **{name: facts[name] for name in signature(PythonInfo).parameters if name in facts}
    )
    return found if any(_fits(spec, found) for spec in base_python) else None


def image_id(client: Client, image: str) -> str:
    """The id of an image, which is pulled where it is missing."""
    from pytest_sandbox.client.pulls import with_image

    return str(with_image(client, image, lambda: client.image_inspect(image))["Id"])


def _asked(client: Client, image: str) -> dict[str, Any]:
    kept = cache_directory("interpreters") / digest(image_id(client, image))
    try:
        return dict(json.loads(kept.read_text()))
    except (OSError, ValueError):
        pass
    done = client.run(image, ["python3", "-I", "-c", _PROBE], entrypoint=[])
    about: dict[str, Any] = json.loads(done.stdout)
    _keep(kept, about)
    return about


def _fits(spec: str, found: PythonInfo) -> bool:
    """`3.13`, `py313`, `python3.13`; whatever names no version fits, and a path does."""
    from virtualenv.discovery.py_spec import PythonSpec

    wanted = PythonSpec.from_string_spec(spec)
    version = found.version_info
    pairs = zip(
        (wanted.major, wanted.minor, wanted.micro),
        (version.major, version.minor, version.micro),
        strict=True,
    )
    return bool(wanted.path) or all(asked in (None, there) for asked, there in pairs)


def _keep(file: Path, content: object) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(content))
    os.replace(partial, file)
