"""Driver `socket`: a directory with a path short enough for unix sockets, reachable by the user.

A program in a container binds its socket there and the test on the host connects to it. The path of
a unix socket ends at 107 bytes (unix(7)), which a state root in a home directory soon exceeds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.volumes.clones import clone
from sandboxd.volumes.hookspecs import Released, Request, Surroundings
from sandboxd.volumes.volume import Volume

_TRASH: Final = ".trash"


class SocketDriver:
    """Its volumes end with the service, as the runtime directory does."""

    name = "socket"

    def __init__(self, surroundings: Surroundings) -> None:
        self._directory = surroundings.runtime_dir / "s"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._trash = surroundings.store.trash_at(self._directory / _TRASH)

    def persists(self, options: Mapping[str, str]) -> bool:
        return False

    def create(self, request: Request) -> Path:
        if request.options or request.snapshot or request.scratch:
            raise BadRequest("driver socket", "it takes no options and starts from no snapshot")
        path = self._directory / os.urandom(5).hex()
        try:
            path.mkdir()
            # Whatever user the program in the container is; the parent directory keeps others out.
            path.chmod(0o777)
        except OSError as error:
            raise SandboxError.from_os(f"create {path}", error) from error
        return path

    def open(self, volume: Volume, subpath: str) -> int:
        return clone(volume.mountpoint, subpath)

    def remove(self, volume: Volume) -> None:
        self._trash.discard(volume.mountpoint)

    def release(self, volume: Volume) -> Released | None:
        return None

    def restore(self, volumes: Sequence[Volume]) -> None:
        self.close()

    def close(self) -> None:
        for left in self._directory.iterdir():
            if left.name != _TRASH:
                self._trash.discard(left)
