"""Layers that are being fetched at this moment: each by one pull, however many want it."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class Flights:
    """Whoever claims a layer fetches and publishes it, and lands it whether that went well or not;
    the others wait for the landing and look again. Nobody waits with a claim of his own in hand,
    so no two can wait for each other."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._airborne: dict[str, threading.Event] = {}

    def claim(self, diff_ids: Sequence[str]) -> list[str]:
        """Those of the layers that nobody else is fetching; they are the caller's now."""
        with self._mutex:
            mine = [each for each in dict.fromkeys(diff_ids) if each not in self._airborne]
            self._airborne.update((each, threading.Event()) for each in mine)
        return mine

    def land(self, diff_ids: Sequence[str]) -> None:
        """Give claims back."""
        with self._mutex:
            landed = [self._airborne.pop(each) for each in diff_ids]
        for event in landed:
            event.set()

    def wait(self, diff_ids: Sequence[str], seconds: float) -> None:
        """Return when one of the layers has landed, or is in nobody's hands, or time is up."""
        with self._mutex:
            event = next(
                (self._airborne[each] for each in diff_ids if each in self._airborne), None
            )
        if event is not None:
            event.wait(seconds)
