"""Slots of one kind: those that wait warm, those ordered, and the starts that wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from sandboxd.launcher.running import Running

_REFILL_DELAY: Final = 0.015
"""Seconds from a start to the order for its replacement: the request at hand comes first."""
_REFILL_DELAY_WHEN_LOW: Final = 0.001
_REFILL_DELAY_AFTER_A_DEATH: Final = 1.0
"""A slot that ends by itself will not be the last: something here prevents them."""


class Pool:
    """`order` asks the fork server for one more slot; `target` is how many are kept warm."""

    def __init__(self, target: int, order: Callable[[Pool], None]) -> None:
        self.target = target
        self._order = order
        self._warm: deque[Running] = deque()
        self._waiters: deque[asyncio.Future[Running]] = deque()
        self._ordered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._warm)

    async def take(self) -> Running:
        """A warm slot, or the next one that is made."""
        if self._warm:
            slot = self._warm.popleft()
            self._refill_later()
            return slot
        waiter: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._order_up_to(len(self._waiters))
        self._refill_later()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._warm.append(waiter.result())
            raise

    def put(self, slot: Running) -> None:
        """A slot that the fork server has made."""
        self._ordered -= 1
        waiter = self._next_waiter()
        if self._closed:
            slot.close()
        elif waiter is None:
            self._warm.append(slot)
        else:
            waiter.set_result(slot)

    def fail(self, error: Exception) -> None:
        """One ordered slot will not come."""
        self._ordered -= 1
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_exception(error)

    def discard(self, slot: Running) -> bool:
        """Take out a slot that ended while it was warm; whether it was one of these."""
        if slot not in self._warm:
            return False
        self._warm.remove(slot)
        self._refill_later(_REFILL_DELAY_AFTER_A_DEATH)
        return True

    def close(self, error: Exception) -> None:
        """No slot is wanted any more; one that is still made ends by itself."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(error)
        while self._warm:
            self._warm.popleft().close()

    def refill(self) -> None:
        """Order what is missing."""
        self._timer = None
        self._order_up_to(self.target - len(self._warm) + len(self._waiters))

    def _refill_later(self, delay: float | None = None) -> None:
        if self._timer is not None or not self.target:
            return
        if delay is None:
            low = len(self._warm) <= self.target // 2
            delay = _REFILL_DELAY_WHEN_LOW if low else _REFILL_DELAY
        self._timer = asyncio.get_running_loop().call_later(delay, self.refill)

    def _order_up_to(self, wanted: int) -> None:
        while self._ordered < wanted:
            self._ordered += 1
            self._order(self)

    def _next_waiter(self) -> asyncio.Future[Running] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None
