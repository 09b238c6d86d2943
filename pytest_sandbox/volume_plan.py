"""What the factory `volume` was asked for, and how it becomes a volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.call_site import CallSite
from pytest_sandbox.marker import Marked
from pytest_sandbox.options import Options, options_of
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.client.snapshot import Recipe, Snapshot
    from pytest_sandbox.client.volume import Volume

Content = bytes | str | Path
"""A file's content: as it is, as text, or to be read from a file or directory of the host."""


_SNAPSHOTS = pytest.StashKey[dict["VolumePlan", "Snapshot"]]()


@dataclass(frozen=True, eq=False, slots=True)
class VolumePlan:
    """The arguments of one `volume(…)`; `site` is where it was called."""

    files: Mapping[str, Content]
    commands: tuple[tuple[str, ...], ...]
    image: str | None
    env: Mapping[str, str]
    user: str
    target: str
    recipe: Recipe | None
    snapshot: Snapshot | str | None
    site: CallSite

    def __post_init__(self) -> None:
        """TypeError or ValueError, at the line of the call, for arguments that cannot work."""
        filled = bool(self.files or self.commands)
        if filled + (self.recipe is not None) + (self.snapshot is not None) > 1:
            raise TypeError("volume: files and commands, recipe, or snapshot: only one of them")
        for path in self.files:
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"volume: file {path!r} is not a path inside the volume")
        if not self.target.startswith("/"):
            raise ValueError(f"volume: target {self.target!r} is not an absolute path")

    @property
    def purpose(self) -> str:
        return "recipe of volume"

    @property
    def fixtures(self) -> Iterable[str]:
        return ()

    def images(self, asked: Marked, options: Options) -> Iterable[str]:
        if self.recipe is not None:
            return [self.recipe.image]
        return [self.image or options.container_image] if self.files or self.commands else []

    def make(self, client: Client, config: pytest.Config) -> Volume:
        """A fresh volume. What fills it is read and sent to the service once per run."""
        if self.snapshot is not None:
            return client.volume(snapshot=self.snapshot)
        if self.recipe is None and not self.files and not self.commands:
            return client.volume()
        known = config.stash.setdefault(_SNAPSHOTS, {})
        if self not in known:
            recipe = self.recipe or self._recipe(self.image or options_of(config).container_image)
            pinned = replace(recipe, image=Suite.of(config).use(recipe.image))
            known[self] = client.snapshot(pinned)
        return client.volume(snapshot=known[self])

    def _recipe(self, image: str) -> Recipe:
        from pytest_sandbox.client.snapshot import Recipe, Step

        return Recipe(
            image,
            self.target,
            steps=[Step(command, workdir=self.target) for command in self.commands],
            files=dict(self._contents()),
            env=self.env,
            user=self.user,
        )

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        """(absolute path in the container, content) of every file."""
        for path, content in self.files.items():
            place = f"{self.target}/{path}"
            if isinstance(content, Path):
                yield from _read_tree(place, self.site.resolve(content))
            else:
                yield place, content.encode() if isinstance(content, str) else content


def _read_tree(place: str, source: Path) -> Iterator[tuple[str, bytes]]:
    """The file at `source`, or every file below it. Raises OSError for one that is missing."""
    if not source.is_dir():
        yield place, source.read_bytes()
        return
    for path in sorted(source.rglob("*")):
        if path.is_file():
            yield f"{place}/{path.relative_to(source).as_posix()}", path.read_bytes()


def as_commands(commands: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """A copy of the commands. TypeError for a command that is one string."""
    for command in commands:
        if isinstance(command, str):
            raise TypeError(f"volume: a command is a list of arguments: [{command!r}, …]")
    return tuple(tuple(command) for command in commands)
