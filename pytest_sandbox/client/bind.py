"""A host directory for `volumes`, with more to say about it than its path."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Bind:
    """A directory of the host that a container sees; with `copy_on_write` it never changes it.

    ::

        c.run("host", ["make"], volumes={Bind(".", copy_on_write=True): "/src"}, workdir="/src")

    What the container writes there goes where the writes to its root go, and ends with it. What is
    mounted below the directory is not in it, and what others change in it meanwhile may or may not
    be seen. A file cannot be bound in this way. In the string forms the same is the word of podman:
    `"/src:O"`.
    """

    path: str | os.PathLike[str]
    copy_on_write: bool = False
