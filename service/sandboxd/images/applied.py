"""What unpacking an archive has come to: a layer's metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Applied:
    """What is in the tree, and what its archive could not give it; paths start without `/`."""

    size: int = 0
    """Bytes in regular files."""
    entries: int = 0
    implied: list[str] = field(default_factory=list)
    """Directories that the archive did not name: 0755 0:0, whatever lower layers say."""
    remade: list[str] = field(default_factory=list)
    """Those of them that the archive also whites out: lower layers have no say about them."""
    opaque_root: bool = False
    """The layer hides everything below it."""
    owners: dict[str, list[int]] = field(default_factory=dict)
    """Owners that the id map does not have."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Devices, file capabilities and attributes that were left out, by path."""

    def to_metadata(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}
