"""One worker's container: the project copy-on-write at its own place, and a way in for execnet."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_sandbox.client.bind import Bind
from pytest_sandbox.client.options import is_host_image
from pytest_sandbox.marker import IMAGE_VARIABLE

if TYPE_CHECKING:
    import pytest

    from pytest_sandbox.client.session import Client
    from pytest_sandbox.matrix.image import ImagePython

_WAIT: Final = "import signal; signal.pause()"
_PASSED: Final = ("PYTEST_", "LC_", "PY_COLORS", "FORCE_COLOR", "NO_COLOR", "LANG", "TZ", "CI")
"""Beginnings of the variables that go along; everything else is the image's."""


class Workplace:
    """A container in which one worker's interpreter is started, again if it crashes."""

    def __init__(self, config: pytest.Config, client: Client, found: ImagePython) -> None:
        """Start the container. Raises what making and starting it raises."""
        self.found = found
        root, here = config.rootpath, config.invocation_params.dir
        project = {root} if here.is_relative_to(root) else {root, here}
        shown = {path: place for path, place in found.shown if not _is_below(path, project)}
        on_host = is_host_image(found.image)
        volumes: dict[Any, Any] = {}
        if not on_host:
            volumes = {path: f"{place}:ro" for path, place in shown.items()}
        volumes |= {Bind(path, copy_on_write=True): str(path) for path in project}
        container = client.container(
            found.image,
            [found.python, "-c", _WAIT],
            entrypoint="",
            user="0",
            init=True,
            volumes=volumes,
            show=list(shown) if on_host else [],
            labels={"io.pytest-sandbox.suite": root.name},
        )
        container.start()
        settings = {
            "host": client.service.host,
            "container": container.id,
            "directory": str(here),
            "env": dict(_environment(found)),
        }
        stream = [sys.executable, "-m", "pytest_sandbox.matrix.stream", json.dumps(settings)]
        self.command = shlex.join([*stream, found.python])
        """What execnet starts: this machine's end of the interpreter in the container."""


def _is_below(path: str, project: set[Path]) -> bool:
    return any(Path(path).is_relative_to(each) for each in project)


def _environment(found: ImagePython) -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.startswith(_PASSED):
            yield name, value
    yield IMAGE_VARIABLE, found.image
    if found.path:
        yield "PYTHONPATH", found.path
