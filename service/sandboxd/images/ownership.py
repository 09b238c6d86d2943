"""Which owner a file of an image gets under this user's id map."""

from __future__ import annotations

from typing import Final

from sandboxd.linux.idmap import IdMap
from sandboxd.store.trees import OVERFLOW_ID

_SET_ID: Final = 0o6000


class Ownership:
    """Under `single` everything belongs to 0; elsewhere ids beyond the map fall to nobody."""

    def __init__(self, idmap: IdMap, *, on_host: bool = False) -> None:
        """`on_host`: the owners are those of the machine's own root, where one that the id map does
        not have shows as nobody. It is the container's root then."""
        self._on_host = on_host
        self._size = 1 if idmap.kind == "single" else idmap.size

    def placed(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner that a file of `uid:gid` can have here."""
        return self._one(uid), self._one(gid)

    def mode(self, mode: int, uid: int, gid: int) -> int:
        """`mode` without set-user-ID and set-group-ID where nobody stands in for the owner."""
        if not mode & _SET_ID:
            return mode
        placed = self.placed(uid, gid)
        stands_in = OVERFLOW_ID in placed and placed != (uid, gid)
        return mode & ~_SET_ID if stands_in else mode

    def _one(self, number: int) -> int:
        if self._on_host and number == OVERFLOW_ID:
            return 0
        if number < self._size:
            return number
        return OVERFLOW_ID if self._size > OVERFLOW_ID else 0
