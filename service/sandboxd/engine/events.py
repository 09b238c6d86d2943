"""What happens to containers, images and volumes: published once, kept a while, sent on."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from sandboxd.engine.filters import Filters, has_labels, passes

HISTORY = 1024
"""Events that a later subscriber can still ask for with `since`."""
_BACKLOG = 1 << 16
"""Events that wait for one subscriber before its stream is ended."""


class Event(NamedTuple):
    kind: str
    """container, image, volume, network or daemon."""
    action: str
    id: str
    attributes: Mapping[str, str]
    time: int
    """Nanoseconds since 1970."""

    def as_docker(self) -> dict[str, Any]:
        """The event in the shape of Docker's API 1.45."""
        legacy = {"status": self.action, "id": self.id}
        if self.kind == "container":
            legacy["from"] = self.attributes.get("image", "")
        return {
            **(legacy if self.kind in ("container", "image") else {}),
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.time // 1_000_000_000,
            "timeNano": self.time,
        }

    def matches(self, filters: Filters) -> bool:
        attributes, verb = self.attributes, self.action.partition(":")[0]
        name = attributes.get("name", "")

        def is_about(kind: str, value: str) -> bool:
            same_id = self.id == value or (len(value) >= 12 and self.id.startswith(value))
            return self.kind == kind and (same_id or name == value.removeprefix("/"))

        def is_image(value: str) -> bool:
            image = attributes.get("image", "")
            return is_about("image", value) or value in (image, image.rpartition(":")[0])

        return (
            passes(filters, "type", lambda value: value == self.kind)
            and passes(filters, "event", lambda value: value in (verb, self.action))
            and passes(filters, "container", lambda value: is_about("container", value))
            and passes(filters, "volume", lambda value: is_about("volume", value))
            and passes(filters, "network", lambda value: is_about("network", value))
            and passes(filters, "daemon", lambda value: is_about("daemon", value))
            and passes(filters, "image", is_image)
            and passes(filters, "scope", lambda value: value == "local")
            and has_labels(attributes, filters.get("label", ()))
        )


class Events:
    """The service's event bus."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()

    def publish(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        event = Event(kind, action, id, attributes, time.time_ns())
        self._history.append(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)

    def subscribe(self, since: float | None, until: float | None, filters: Filters) -> Subscription:
        """Dicts in Docker's shape, from now on, or from `since` as far as the history goes.

        Registered at once: nothing that is published after this call is missed. Times are Unix
        seconds; the stream ends at `until`. Iterate it to its end or `close` it.
        """
        past: tuple[Event, ...] = ()
        if since is not None or until is not None:
            begin = round((since or 0) * 1e9)
            past = tuple(event for event in self._history if event.time >= begin)
        return Subscription(self._subscriptions, past, until, filters)


class Subscription:
    """One subscriber's events."""

    def __init__(
        self,
        members: set[Subscription],
        past: tuple[Event, ...],
        until: float | None,
        filters: Filters,
    ) -> None:
        self._members = members
        self._queue: deque[Event] = deque()
        self._until = until
        self._filters = filters
        self._ended = False
        self._more: asyncio.Future[None] | None = None
        members.add(self)
        for event in past:
            self.offer(event)

    def offer(self, event: Event) -> None:
        late = self._until is not None and event.time > self._until * 1e9
        if late or len(self._queue) >= _BACKLOG:
            self.close()
        elif event.matches(self._filters):
            self._queue.append(event)
            self._wake()

    def close(self) -> None:
        self._ended = True
        self._members.discard(self)
        self._wake()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                while self._queue:
                    yield self._queue.popleft().as_docker()
                if self._ended or not await self._arrival():
                    return
        finally:
            self.close()

    async def _arrival(self) -> bool:
        """Wait for more; False when the time is up."""
        self._more = asyncio.get_running_loop().create_future()
        left = None if self._until is None else self._until - time.time()
        try:
            async with asyncio.timeout(left):
                await self._more
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        if self._more and not self._more.done():
            self._more.set_result(None)
