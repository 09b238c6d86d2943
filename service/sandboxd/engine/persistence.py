"""Containers in the database: what of them outlives the service, and how they come back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from sandboxd.engine.configuration import parse
from sandboxd.engine.container import Container, Facts, MountPoint
from sandboxd.engine.floors import Floors
from sandboxd.engine.settings import MountRequest
from sandboxd.engine.states import State
from sandboxd.errors import SandboxError

log = logging.getLogger("sandboxd.engine")

_KILLED: Final = 137
_ENDED_WITH_SERVICE: Final = "the service ended while the container was running"


class Persistence:
    """Ephemeral containers pass through here without a trace."""

    def __init__(self, floors: Floors) -> None:
        self._rows = floors.store.database.containers
        self._store = floors.store
        self._memory = floors.memory
        self._directory = floors.containers

    def write(self, container: Container) -> None:
        """Write what is now. Raises NoSpace when the disk is full."""
        if not container.ephemeral:
            self._rows.put(container.id, _document(container))

    def forget(self, container: Container) -> None:
        """Delete the record, then the files: a crash in between leaves files that `sweep` finds."""
        if not container.ephemeral:
            with self._store.database.releasing():
                self._rows.delete(container.id)
        if not container.throwaway:
            self._memory.discard(container.directory)

    def restore(self) -> Iterator[Container]:
        """The containers of an earlier service, none of them running any more.

        A record that cannot be read is reported and left where it is.
        """
        for id, document in self._rows.all().items():
            try:
                container = self._container(id, document)
            except (SandboxError, KeyError, TypeError, ValueError) as error:
                log.error("container %s cannot be restored: %s", id, error)
                continue
            if container.running:
                container.facts = _ended_with_service(container.facts)
                self.write(container)
            yield container

    def sweep(self) -> None:
        """Discard the directories of containers that have no record."""
        known = self._rows.all().keys()
        for path in self._directory.iterdir():
            if path.name not in known:
                self._store.discard(path)

    def _container(self, id: str, document: dict[str, Any]) -> Container:
        image_config = document["image_config"]
        facts = Facts(**document["facts"])
        facts.state = State(facts.state)
        return Container(
            id=id,
            name=document["name"],
            settings=parse(document["body"], image_config),
            body=document["body"],
            image=document["image"],
            image_config=image_config,
            mounts=tuple(_mount_point(row) for row in document["mounts"]),
            created=document["created"],
            home=self._directory,
            facts=facts,
        )


def _ended_with_service(facts: Facts) -> Facts:
    """A kill -9 of the service kills its containers: that is how they ended."""
    return Facts(
        State.EXITED, _KILLED, _ENDED_WITH_SERVICE, started=facts.started, finished=time.time_ns()
    )


def _document(container: Container) -> dict[str, Any]:
    return {
        "name": container.name,
        "body": container.body,
        "image": container.image,
        "image_config": container.image_config,
        "mounts": [asdict(point) for point in container.mounts],
        "created": container.created,
        "facts": asdict(container.facts),
    }


def _mount_point(row: dict[str, Any]) -> MountPoint:
    return MountPoint(MountRequest(**row["request"]), row["volume"], row["anonymous"])
