"""The floors below the engine, as one value to hand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.engine.memory import Memory
    from sandboxd.images import Images
    from sandboxd.launcher.client import Launcher
    from sandboxd.store import Store
    from sandboxd.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Floors:
    """This is the only place where images, volumes and the launcher meet."""

    store: Store
    images: Images
    volumes: Volumes
    launcher: Launcher
    rlimits: tuple[tuple[str, int, int], ...]
    """Limits of every container that sets none of the same name: (name, soft, hard)."""
    containers: Path
    """The directory for what containers leave on disk."""
    memory: Memory
