"""Writing a recipe's files into a volume whose content nobody vouches for: by descriptor only."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandboxd.errors import BadRequest, SandboxError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_TO_ALL: Final = 0o1777


@dataclass(frozen=True, slots=True)
class File:
    """A file of a recipe; it belongs to root."""

    content: bytes
    mode: int

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


def write_beneath(root: int, files: Mapping[str, File], *, open_to_all: bool) -> None:
    """Write files by relative path below the directory `root`, a descriptor that this closes.

    With `open_to_all` the directory itself gets mode 1777 when it is root's and empty, so that a
    step's user may write there. Raises BadRequest where a symbolic link or something else stands
    in the way.
    """
    try:
        here = os.open(".", _DIRECTORY, dir_fd=root)
        try:
            if open_to_all and os.fstat(here).st_uid == 0 and not os.listdir(here):
                os.fchmod(here, _OPEN_TO_ALL)
            for path, file in files.items():
                _write(here, path, file)
        finally:
            os.close(here)
    finally:
        os.close(root)


def _write(root: int, path: str, file: File) -> None:
    *parents, name = path.split("/")
    directory = os.dup(root)
    try:
        for parent in parents:
            below = _enter(directory, parent)
            os.close(directory)
            directory = below
        fd = os.open(name, _FILE, file.mode, dir_fd=directory)
        with open(fd, "wb") as target:
            target.write(file.content)
            # Neither the service's umask nor a file that was there before decides its mode.
            os.fchmod(target.fileno(), file.mode)
    except (NotADirectoryError, IsADirectoryError) as error:
        raise BadRequest(f"cannot write {path}", str(error)) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadRequest(f"cannot write {path}", "a symbolic link stands there") from error
        raise SandboxError.from_os(f"write {path}", error) from error
    finally:
        os.close(directory)


def _enter(directory: int, name: str) -> int:
    """A descriptor of the directory `name`, made with mode 0755 when it is missing."""
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    os.fchmod(fd, 0o755)
    return fd
