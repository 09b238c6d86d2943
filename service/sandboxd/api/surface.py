"""What every handler can reach: the engine, and what the API itself keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandboxd.engine import Engine


@dataclass(slots=True)
class Activity:
    """Whether clients are being answered: an idle service ends only when they are not."""

    in_flight: int = 0
    last: float = field(default_factory=time.monotonic)
    """time.monotonic() when the last request began or ended."""

    def __enter__(self) -> None:
        self.in_flight += 1
        self.last = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1
        self.last = time.monotonic()


@dataclass(slots=True)
class Surface:
    """The API's own state, one object for each service."""

    engine: Engine
    stop: Callable[[], None]
    """Asks the service to stop; POST /sandbox/shutdown calls it."""
    socket_path: str = ""
    activity: Activity = field(default_factory=Activity)
    started: float = field(default_factory=time.time)
    _background: set[asyncio.Task[Any]] = field(default_factory=set)
    _streams: set[asyncio.Task[Any]] = field(default_factory=set)

    def is_streaming(self) -> None:
        """The request that this task answers has no end of its own: a stop will not wait for it."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    def end_streams(self) -> None:
        """Hang up on followers, attached clients and leases."""
        for task in self._streams:
            task.cancel()

    def finish_later(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run to the end what must not be cut short when its client leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def settle(self) -> None:
        """Wait for all that was to be finished later."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
