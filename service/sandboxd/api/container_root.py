"""A container's root directory as a descriptor, for reading and writing files from outside.

Of a running one it is the root that its programs see, mounts included. Of one that does not run it
is its layers under its upper directory; its volumes are not mounted then.
"""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sandboxd.errors import Conflict
from sandboxd.linux.mount import overlay

if TYPE_CHECKING:
    from sandboxd.engine import Container, Engine

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_START_IT = "start the container first"


@asynccontextmanager
async def opened_root(engine: Engine, container: Container, path: str) -> AsyncIterator[int]:
    """A descriptor of the root in which `path` is meant; it is closed at the end.

    While it is open, a container that does not run is not started. Raises Conflict where the files
    at `path` are out of reach.
    """
    fd = _root_of_running(container)
    if fd is not None:
        try:
            yield fd
        finally:
            os.close(fd)
        return
    async with container.lock:
        fd = _root_of_running(container)
        if fd is None:
            fd = _root_at_rest(engine, container, path)
        try:
            yield fd
        finally:
            os.close(fd)


def _root_of_running(container: Container) -> int | None:
    program = container.program
    if program is None:
        return None
    try:
        fd = os.open(f"/proc/{program.running.pid}/root", _DIRECTORY)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Had it died before the open, the number might be another process's by now.
    if select.select([program.running.pidfd], [], [], 0)[0]:
        os.close(fd)
        return None
    return fd


def _root_at_rest(engine: Engine, container: Container, path: str) -> int:
    what = f"files of container {container.name}"
    if container.throwaway:
        why = "one that is removed with its end keeps none while it does not run"
        raise Conflict(what, why, _START_IT)
    for point in container.mounts:
        target = point.request.target.rstrip("/") + "/"
        if f"/{path.strip('/')}/".startswith(target):
            raise Conflict(what, f"{target} is mounted while it runs only", _START_IT)
    image = engine.images.get(container.image)
    if image.is_host:
        why = "the root of image host is put together when it starts"
        raise Conflict(what, why, _START_IT)
    # Not the work directory of its starts: the kernel refuses one that a volatile mount left.
    upper, work = container.upper / "u", container.upper / "r"
    for directory in (upper, work):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    lowers = tuple(str(lower) for lower in engine.images.lowers(image))
    return overlay(lowers, str(upper), str(work))
