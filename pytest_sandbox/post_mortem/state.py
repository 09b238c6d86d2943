"""What a kept state says about its test: who it was, how it was run, what is kept of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1
FILE: Final = "state.json"
REPORT: Final = "report.txt"
UPPERS: Final = "uppers"
VOLUMES: Final = "volumes"


@dataclass(frozen=True)
class ContainerState:
    """A fixture's container, as it was when the test failed."""

    fixture: str
    name: str
    image: str
    """The image that its writable layer was made to."""
    of_image: str
    """The image that it was made from."""
    body: dict[str, Any] = field(default_factory=dict)
    """What makes it again: the Engine API's body for a creation."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Path in the container to the archive of what was mounted there, in this state's directory."""
    command: tuple[str, ...] = ()
    """What it ran."""
    size: int = 0
    """Bytes of its writable layer."""


@dataclass(frozen=True)
class State:
    """One failed test. It is written to disk for its user alone: the environment has secrets."""

    nodeid: str
    when: float
    """Seconds since 1970."""
    interpreter: str
    rootdir: str
    directory: str
    """Where pytest was started."""
    options: tuple[str, ...]
    """Its command line without what selects tests."""
    environ: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    plan: tuple[Any, ...] = ()
    """Of a hermetic test: the operations that built its sandbox."""
    uppers: tuple[str, ...] = ()
    """Numbers of the uppers that are kept; those that are not were empty."""
    containers: tuple[ContainerState, ...] = ()
    left_out: tuple[str, ...] = ()
    """Paths that could not be read."""
    size: int = 0
    """Bytes on disk, about."""
    format: int = FORMAT

    @property
    def hermetic(self) -> bool:
        return bool(self.plan)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def load(directory: Path) -> State | None:
    """What is kept in `directory`; None where it is no state of this format."""
    try:
        fields = json.loads((directory / FILE).read_text())
    except (OSError, ValueError):
        return None
    if fields.get("format") != FORMAT:
        return None
    containers = tuple(
        ContainerState(**{**each, "command": tuple(each["command"])})
        for each in fields.pop("containers")
    )
    for name in ("options", "plan", "uppers", "left_out"):
        fields[name] = tuple(fields[name])
    return State(**fields, containers=containers)
