"""What a Dockerfile can say: one class for each instruction, words as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SCRIPT: Final = "/dev/pipes/script"
"""Where a RUN finds the heredoc that is its program."""


class Command(NamedTuple):
    """A command: one string for the shell, or the words of the exec form."""

    words: tuple[str, ...]
    is_exec: bool


class Heredoc(NamedTuple):
    """A document in the Dockerfile; its content is expanded unless its name was quoted."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """`line` is where it begins, 0 for a trigger of the base image; `text` is all of it."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str
    name: str
    platform: str


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    """`script` is the content of a heredoc that is a program of its own, to be found at SCRIPT."""

    command: Command
    script: str
    mounts: tuple[str, ...]
    network: str


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY and ADD. `origin` is a stage or an image; empty for the build context."""

    is_add: bool
    sources: tuple[str | Heredoc, ...]
    target: str
    origin: str = ""
    owner: str = ""
    mode: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    unpack: bool = True


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """Durations in nanoseconds by the flag's name; `command` is None for HEALTHCHECK NONE."""

    command: Command | None
    durations: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopsignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    trigger: str


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    author: str


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`escape` is the escape character, a backslash or a backtick."""

    instructions: tuple[Instruction, ...]
    escape: str
    warnings: tuple[str, ...] = ()
