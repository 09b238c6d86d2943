"""From a create body to a container that can be started, or to nothing at all."""

from __future__ import annotations

import marshal
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine import network_mode
from sandboxd.engine.configuration import parse
from sandboxd.engine.container import Container
from sandboxd.engine.events import Events
from sandboxd.engine.floors import Floors
from sandboxd.engine.leases import Lease
from sandboxd.engine.limits import Limiter
from sandboxd.engine.mounting import Mounting
from sandboxd.engine.mountpoints import by_depth
from sandboxd.engine.names import new_id
from sandboxd.engine.persistence import Persistence
from sandboxd.engine.platforms import check_platform
from sandboxd.engine.registry import Registry
from sandboxd.engine.settings import MountRequest, Settings
from sandboxd.errors import BadRequest, CannotEnforce, SandboxError

if TYPE_CHECKING:
    from sandboxd.images import Image

_PARSED_MAX: Final = 256
"""Bodies of which the settings are kept."""


class Creation:
    """Makes containers; whatever fails, nothing of one that failed is left."""

    def __init__(
        self,
        floors: Floors,
        registry: Registry,
        mounting: Mounting,
        limiter: Limiter,
        persistence: Persistence,
        events: Events,
    ) -> None:
        self._floors = floors
        self._registry = registry
        self._mounting = mounting
        self._limiter = limiter
        self._persistence = persistence
        self._events = events
        self._parsed: dict[tuple[str, bytes], Settings] = {}

    async def create(
        self,
        body: Mapping[str, Any],
        name: str | None = None,
        platform: str = "",
        lease: Lease | None = None,
        *,
        throwaway: bool = False,
    ) -> Container:
        """Raises NoSuchImage, BadRequest, CannotEnforce, Conflict for a name that is taken, and
        NoSuchContainer for one that it is to join."""
        reference = body.get("Image")
        if not isinstance(reference, str) or not reference:
            raise BadRequest("no image specified", mend="name one in Image")
        image = self._floors.images.get(reference)
        check_platform(platform, image)
        body = network_mode.with_id(body, self._registry)
        settings = self._settings(body, image)
        self._limiter.check(settings.host.limits)
        if lease:
            lease.check()
        id = new_id()
        throwaway = throwaway or settings.host.auto_remove
        ephemeral = throwaway or lease is not None
        memory = self._memory_for(settings, throwaway=throwaway, lease=lease)
        name = self._registry.reserve(id, name)
        try:
            requests = self._requests(settings)
            mounts = await self._mounting.resolve(requests, image, lease=lease, ephemeral=ephemeral)
        except BaseException:
            self._registry.free(name)
            raise
        container = Container(
            id=id,
            name=name,
            settings=settings,
            body=body,
            image=image.id,
            image_config=image.config.get("config") or {},
            mounts=mounts,
            created=time.time_ns(),
            home=self._floors.containers,
            memory=memory,
            throwaway=throwaway,
            ephemeral=ephemeral,
            auto_remove=settings.host.auto_remove,
            lease=lease,
        )
        self._introduce(container)
        self._events.publish("container", "create", id, container.attributes)
        return container

    def _settings(self, body: Mapping[str, Any], image: Image) -> Settings:
        """The body's settings; tests ask for the same container again and again."""
        key = (image.id, marshal.dumps(dict(body)))
        found = self._parsed.get(key)
        if found is None:
            if len(self._parsed) >= _PARSED_MAX:
                self._parsed.clear()
            found = self._parsed[key] = parse(body, image.config.get("config") or {})
        return found

    def _memory_for(
        self, settings: Settings, *, throwaway: bool, lease: Lease | None
    ) -> Path | None:
        """Where its writes go in memory: those of a lease's container, while there is room."""
        asked, memory = settings.host.upper, self._floors.memory
        if asked == "memory" and lease is None:
            why = "the container outlives the service, and its memory does not"
            raise CannotEnforce("StorageOpt upper=memory", why, "make it under a lease")
        if throwaway or lease is None or asked == "disk":
            return None
        return memory.containers if asked == "memory" or memory.has_room() else None

    def _requests(self, settings: Settings) -> tuple[MountRequest, ...]:
        host = settings.host
        if not host.volumes_from:
            return host.mounts
        return self._with_inherited(host.mounts, host.volumes_from)

    def _with_inherited(
        self, requests: tuple[MountRequest, ...], names: tuple[str, ...]
    ) -> tuple[MountRequest, ...]:
        """The mounts of other containers (`NAME[:ro]`) where this one asks for none of its own."""
        anonymous = [request for request in requests if request.anonymous]
        merged = {request.target: request for request in requests if not request.anonymous}
        for entry in names:
            name, _, mode = entry.partition(":")
            if mode not in ("", "ro", "rw"):
                raise BadRequest(f"invalid mode: {mode}")
            for point in self._registry.find(name).mounts:
                readonly = mode == "ro" or point.request.readonly
                source = point.volume or point.request.source
                inherited = replace(point.request, source=source, readonly=readonly, copy=False)
                merged.setdefault(inherited.target, inherited)
        for request in anonymous:
            merged.setdefault(request.target, request)
        return by_depth(merged.values())

    def _introduce(self, container: Container) -> None:
        self._registry.add(container)
        try:
            if not container.throwaway:
                os.mkdir(container.directory, 0o700)
            self._persistence.write(container)
            if container.lease:
                container.lease.own(container)
        except (OSError, SandboxError) as error:
            self._registry.drop(container)
            self._persistence.forget(container)
            self._mounting.remove_anonymous(container.mounts)
            if isinstance(error, OSError):
                raise SandboxError.from_os(f"create container {container.name}", error) from error
            raise
