"""Relative paths in a factory's arguments: meant from the file that calls the factory."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class CallSite:
    """The directory of the code that called a factory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of_caller(cls, depth: int = 1) -> CallSite:
        """`depth` 1: the caller of the function that calls this."""
        return cls(Path(sys._getframe(depth + 1).f_code.co_filename).absolute().parent)

    def resolve(self, path: str | os.PathLike[str]) -> Path:
        """The path beside the calling file if it exists there, else from the current directory."""
        beside = self.directory / path
        return beside if beside.exists() else Path(path).absolute()
