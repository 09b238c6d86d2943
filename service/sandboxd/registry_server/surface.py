"""What every handler can reach, and the bounds that requests meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sandboxd.registry_server.access import Access
from sandboxd.registry_server.local_images import LocalImages
from sandboxd.registry_server.repositories import Repositories
from sandboxd.registry_server.uploads import Uploads
from sandboxd.store import Store

BLOB_MAX: Final = 64 << 30
"""Bytes of one blob."""
STALL: Final = 60.0
"""Seconds for which a body may stand still."""


@dataclass(frozen=True, slots=True)
class Surface:
    store: Store
    repositories: Repositories
    local: LocalImages
    uploads: Uploads
    access: Access
    stall: float = STALL
    blob_max: int = BLOB_MAX
