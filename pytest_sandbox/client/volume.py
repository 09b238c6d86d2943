"""Volumes: directories that outlive a container, empty or filled from a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_sandbox.client.targets import path_part

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client


class Volume:
    """One volume of the service; `with` removes it at the end.

    Mount it with `volumes={volume: "/data"}` or `volumes={"/data": volume}`.
    """

    def __init__(self, client: Client, row: dict[str, Any]) -> None:
        self._client = client
        self.name: str = row["Name"]
        self.driver: str = row.get("Driver", "local")
        self.labels: dict[str, str] = row.get("Labels") or {}
        self.mountpoint = Path(row.get("Mountpoint") or "/")
        """The directory as the service sees it: the inside of its own mounts for a copy-on-write
        volume, a plain directory of the host otherwise."""

    def inspect(self) -> dict[str, Any]:
        """Docker's JSON for the volume. Raises NoSuchVolume."""
        found: dict[str, Any] = self._client.call("GET", f"/volumes/{path_part(self.name)}")
        return found

    def remove(self, force: bool = False) -> None:
        """Remove it and its data. Conflict while a container uses it; `force` pardons absence."""
        self._client.volume_remove(self.name, force)

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove(force=True)

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"
