"""What a RUN asks of whoever can run a command: plain data, no process here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandboxd.images.build.union import Parts


@dataclass(frozen=True, slots=True)
class TreeMount:
    """Part of a tree, of one directory or several layers, topmost first. Writes are discarded."""

    target: str
    lowers: tuple[Path, ...]
    parts: Parts
    readonly: bool
    is_file: bool


@dataclass(frozen=True, slots=True)
class DirectoryMount:
    """A directory of the service's own that the command may fill."""

    target: str
    path: Path
    readonly: bool


@dataclass(frozen=True, slots=True)
class MemoryMount:
    """A fresh tmpfs; `size` in bytes, 0 for no limit."""

    target: str
    size: int


@dataclass(frozen=True, slots=True)
class FileMount:
    """A file whose content never touches a disk: a secret, or the script of a heredoc."""

    target: str
    content: bytes
    mode: int
    uid: int = 0
    gid: int = 0


StepMount = TreeMount | DirectoryMount | MemoryMount | FileMount


@dataclass(frozen=True, slots=True)
class RunStep:
    """A command over layers. What it writes is to be in `staged / "u"` afterwards.

    `lowers` are topmost first; with `on_host` they lie on the machine's own root. `staged` is an
    empty private directory of the state root.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    lowers: tuple[Path, ...]
    on_host: bool
    staged: Path
    mounts: tuple[StepMount, ...]
    network: str
    output: Callable[[bytes], None]


class StepRunner(Protocol):
    """Runs commands of build steps."""

    async def run(self, step: RunStep) -> int:
        """The exit code, once every process of the step has ended. Raises SandboxError.

        Cancelling it kills the command and returns when it is dead.
        """
        ...
