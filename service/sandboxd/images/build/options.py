"""What a client asks for beside the Dockerfile and its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandboxd.images.reference import Reference
from sandboxd.images.registry.credentials import Credentials

Report = Callable[[dict[str, Any]], None]
"""Takes one object of the Engine API's build stream; call it from the event loop only."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """`arguments` are --build-arg, None for a name without a value; `secrets` are bytes by id."""

    names: tuple[Reference, ...] = ()
    target: str = ""
    platform: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    network: str = ""
    no_cache: bool = False
    pull: bool = False
    credentials: Callable[[str], Credentials | None] = lambda _: None
    """Credentials for a registry's domain."""
