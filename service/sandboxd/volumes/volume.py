"""What a volume is, and what it may be called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandboxd.errors import BadRequest

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_MAX: Final = 200
"""Characters; the name is a directory's, and NAME_MAX leaves room beside it."""


@dataclass(slots=True)
class Volume:
    """`created` is in seconds since 1970; `snapshot` is the key of the snapshot it starts from.

    `mountpoint` is where the content is: a directory of the machine, or, for a volume that starts
    from a snapshot, a mount that only the service sees. An `ephemeral` volume ends with the
    service.
    """

    name: str
    driver: str
    mountpoint: Path
    created: float
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    snapshot: str | None = None
    ephemeral: bool = False

    def to_document(self) -> dict[str, Any]:
        """What the database keeps."""
        return {
            "driver": self.driver,
            "mountpoint": str(self.mountpoint),
            "created": self.created,
            "labels": self.labels,
            "options": self.options,
            "anonymous": self.anonymous,
            "snapshot": self.snapshot,
        }

    @classmethod
    def from_document(cls, name: str, row: dict[str, Any]) -> Volume:
        fields = {key: row[key] for key in ("labels", "options", "anonymous", "snapshot")}
        return cls(name, row["driver"], Path(row["mountpoint"]), row["created"], **fields)


def check_name(name: str) -> str:
    """Raises BadRequest in Docker's words."""
    if len(name) == 1:
        raise BadRequest(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        shown = name[:100]
        raise BadRequest(
            f'create {shown}: "{shown}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    return name
