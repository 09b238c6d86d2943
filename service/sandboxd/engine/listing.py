"""The rows of GET /containers/json: which containers, and what of each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.clock import human_duration
from sandboxd.engine.container import Container
from sandboxd.engine.filters import Filters, has_labels, passes, pattern, truth
from sandboxd.engine.inspection import mount_row, network_mode, networks
from sandboxd.engine.states import State
from sandboxd.engine.trees import tree_size
from sandboxd.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from sandboxd.engine.registry import Registry
    from sandboxd.images import Images
    from sandboxd.volumes import Volumes

_KEYS: Final = frozenset(
    ("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label")
    + ("name", "network", "publish", "since", "status", "volume")
)
_STATUSES: Final = frozenset(
    ("created", "running", "paused", "restarting", "removing", "exited", "dead")
)
_HEALTHS: Final = frozenset(("starting", "healthy", "unhealthy", "none"))


class Listing:
    """Chooses containers by Docker's filters and shows them in rows."""

    def __init__(self, registry: Registry, images: Images, volumes: Volumes) -> None:
        self._registry = registry
        self._images = images
        self._volumes = volumes

    def rows(self, *, all: bool, limit: int, filters: Filters, size: bool) -> list[dict[str, Any]]:
        """Newest first. `limit` below one is none; a limit or a status filter implies `all`.

        Raises BadRequest for an unknown filter or value.
        """
        every = all or limit > 0 or bool(filters.keys() & {"status", "exited"})
        chosen = [each for each in self.matching(filters) if every or each.running][::-1]
        return [self._row(each, size) for each in (chosen[:limit] if limit > 0 else chosen)]

    def matching(self, filters: Filters) -> list[Container]:
        """All containers that pass the filters, oldest first."""
        _check(filters)
        before = [self._registry.find(ref).created for ref in filters.get("before", ())]
        since = [self._registry.find(ref).created for ref in filters.get("since", ())]
        return [
            container
            for container in self._registry
            if all(container.created < time for time in before)
            and all(container.created > time for time in since)
            and self._passes(container, filters)
        ]

    def _passes(self, container: Container, filters: Filters) -> bool:
        settings, facts = container.settings, container.facts
        volumes = {point.volume for point in container.mounts if point.volume}
        places = {point.request.target for point in container.mounts}
        exposed = settings.exposed_ports
        ports = {*exposed, *(port.partition("/")[0] for port in exposed)}
        exit_code = str(facts.exit_code) if facts.state is State.EXITED else ""
        health = container.health.status if container.health else "none"
        return (
            has_labels(settings.labels, filters.get("label", ()))
            and passes(filters, "id", container.id.startswith)
            and passes(filters, "name", lambda text: _is_named(container.name, text))
            and passes(filters, "status", lambda text: text == facts.state)
            and passes(filters, "exited", lambda text: text == exit_code)
            and passes(filters, "ancestor", lambda text: self._descends(container, text))
            and passes(filters, "volume", lambda text: text in volumes or text in places)
            and passes(filters, "network", lambda text: text == network_mode(container))
            and passes(filters, "expose", lambda text: text in ports)
            and passes(filters, "publish", lambda text: False)
            and passes(filters, "is-task", lambda text: not truth("is-task", text))
            and passes(filters, "health", lambda text: text == health)
        )

    def _descends(self, container: Container, reference: str) -> bool:
        if reference == container.settings.image:
            return True
        try:
            return self._images.get(reference).id == container.image
        except (BadRequest, NotFound):
            return False

    def _row(self, container: Container, size: bool) -> dict[str, Any]:
        settings = container.settings
        row: dict[str, Any] = {
            "Id": container.id,
            "Names": [f"/{container.name}"],
            "Image": settings.image,
            "ImageID": container.image,
            "Command": " ".join(settings.args),
            "Created": container.created // 1_000_000_000,
            "Ports": self._ports(container),
            "Labels": dict(settings.labels),
            "State": str(container.state),
            "Status": status_text(container),
            "HostConfig": {"NetworkMode": network_mode(container)},
            "NetworkSettings": {"Networks": networks()},
            "Mounts": [mount_row(point, self._volumes) for point in container.mounts],
        }
        if size:
            row["SizeRw"], row["SizeRootFs"] = self.sizes(container)
        return row

    def sizes(self, container: Container) -> tuple[int, int]:
        """Bytes in its writable layer, as far as that lies on disk, and with the image's."""
        written = tree_size(container.upper / "u")
        try:
            return written, written + self._images.get(container.image).size
        except NotFound:
            return written, written

    def _ports(self, container: Container) -> list[Mapping[str, Any]]:
        if not container.running:
            return []
        pairs = (port.split("/") for port in container.settings.exposed_ports)
        return [{"PrivatePort": int(number), "Type": protocol} for number, protocol in pairs]


def count(containers: Iterable[Container]) -> dict[str, int]:
    """How many there are, in the words of GET /info."""
    running = [container.running for container in containers]
    return {
        "Containers": len(running),
        "ContainersRunning": sum(running),
        "ContainersPaused": 0,
        "ContainersStopped": len(running) - sum(running),
    }


def status_text(container: Container) -> str:
    """What `docker ps` prints under STATUS."""
    facts = container.facts
    if facts.state is State.RUNNING:
        return f"Up {_since(facts.started)}{_health_text(container)}"
    if facts.state is State.EXITED:
        return f"Exited ({facts.exit_code}) {_since(facts.finished)} ago"
    texts = {State.CREATED: "Created", State.REMOVING: "Removal In Progress", State.DEAD: "Dead"}
    return texts.get(facts.state, "")


def _health_text(container: Container) -> str:
    if container.health is None:
        return ""
    status = container.health.status
    return " (health: starting)" if status == "starting" else f" ({status})"


def _since(time_ns: int) -> str:
    return human_duration((time.time_ns() - time_ns) / 1e9)


def _is_named(name: str, text: str) -> bool:
    return bool(pattern("name", text.removeprefix("/")).search(name)) or bool(
        pattern("name", text).search(f"/{name}")
    )


def _check(filters: Filters) -> None:
    for key, values in filters.items():
        if key not in _KEYS:
            raise BadRequest(f"invalid filter '{key}'")
        allowed: Iterable[str] | None = {"status": _STATUSES, "health": _HEALTHS}.get(key)
        for value in values:
            if allowed is not None and value not in allowed:
                raise BadRequest(f"invalid filter '{key}={value}'")
            if key == "exited" and not value.lstrip("-").isdecimal():
                raise BadRequest(f"invalid filter '{key}={value}'")
