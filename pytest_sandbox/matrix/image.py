"""What Python an image has, and what must be mounted for it to run this project's tests."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_sandbox.client.options import is_host_image

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

_PROBE: Final = """
import importlib.util, json, os, sys, sysconfig
def has(name):
    return importlib.util.find_spec(name) is not None
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])),
    "abi": sysconfig.get_config_var("SOABI") or "",
    "has": [name for name in ("pytest", "execnet", "xdist") if has(name)],
    "path": os.environ.get("PYTHONPATH", ""),
}))
"""
_CARRIED: Final = ("execnet", "xdist")
"""Pure Python: they are mounted where an image has pytest and not them."""
_PLACE: Final = "/opt/pytest-sandbox"


class ImagePython(NamedTuple):
    """An image in which tests can run."""

    image: str
    """As the user wrote it."""
    python: str
    """The interpreter's name or path there."""
    version: str
    shown: tuple[tuple[str, str], ...]
    """Host directories that are mounted there, read-only, and where."""
    sites: tuple[str, ...]
    """Directories there that hold installed packages, which its interpreter does not know."""
    path: str = ""
    """PYTHONPATH for programs that tests start there; empty: the image's own."""


def look_into(client: Client, image: str) -> ImagePython:
    """Ask the image's interpreter. Raises NoSuchImage, and HostLacks where there is no Python with
    pytest, nor one that the running environment fits."""
    from pytest_sandbox.errors import StartFailed

    for python in (sys.executable,) if is_host_image(image) else ("python", "python3"):
        try:
            done = client.run(image, [python, "-c", _PROBE], entrypoint="", show=_environment())
        except StartFailed:
            continue
        if done.exit_code == 0:
            found = json.loads(done.stdout)
            return _fitted(image, python, found)
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise _unusable(image, f"its {python} does not run: {said}", own_version())
    raise _unusable(image, "it has no Python", own_version())


def _fitted(image: str, python: str, found: Mapping[str, Any]) -> ImagePython:
    version, abi, has = found["version"], found["abi"], found["has"]
    if is_host_image(image):
        return ImagePython(image, python, version, _at_their_own_place(), ())
    if "pytest" in has:
        absent = [name for name in _CARRIED if name not in has]
        carried = tuple((_package(name), f"{_PLACE}/{name}") for name in absent)
        return ImagePython(image, python, version, carried, (_PLACE,) if absent else ())
    own = sysconfig.get_config_var("SOABI") or ""
    if abi == own:
        sites = tuple(path for path in _environment() if path.endswith("-packages"))
        path = os.pathsep.join(filter(None, [found["path"], *sites]))
        return ImagePython(image, python, version, _at_their_own_place(), sites, path)
    why = f"its Python {version} ({abi}) has no pytest, and packages of {own} do not run in it"
    raise _unusable(image, why, ".".join(version.split(".")[:2]))


def _unusable(image: str, why: str, version: str) -> Exception:
    from pytest_sandbox.errors import HostLacks

    mend = (
        f"echo pytest >requirements.txt && sandboxctl image python -r requirements.txt {version}, "
        "and name the image that it prints"
    )
    return HostLacks(f"run tests in the image {image}", why, mend)


def own_version() -> str:
    """MAJOR.MINOR of the running interpreter."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _at_their_own_place() -> tuple[tuple[str, str], ...]:
    return tuple((path, path) for path in _environment())


def _environment() -> list[str]:
    """The directories that the running interpreter imports from, its standard library left out."""
    return list(dict.fromkeys(_imported_from()))


def _imported_from() -> Iterator[str]:
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    own |= {os.getcwd(), os.path.dirname(sys.executable)}
    for path in map(os.path.abspath, sys.path):
        within = os.path.dirname(path) if path.endswith("lib-dynload") else path
        if os.path.isdir(path) and within not in own:
            yield path


def _package(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return os.path.dirname(spec.origin)
