"""Which containers there are: found by id, by the beginning of an id, by name."""

from __future__ import annotations

from collections.abc import Iterator

from sandboxd.engine.container import Container
from sandboxd.engine.names import checked_name, random_name
from sandboxd.errors import BadRequest, Conflict, NoSuchContainer


class Registry:
    """Containers by id, and the names that are taken, also by those still being made."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        """Oldest first; safe against changes meanwhile."""
        return iter(tuple(self._containers.values()))

    def find(self, ref: str) -> Container:
        """By id, by name with or without its slash, or by a unique beginning of an id.

        Raises NoSuchContainer, or BadRequest for a beginning that several share.
        """
        if found := self._containers.get(ref):
            return found
        if (id := self._names.get(ref.removeprefix("/"))) and id in self._containers:
            return self._containers[id]
        found = None
        for id in self._containers if ref else ():
            if id.startswith(ref):
                if found:
                    raise BadRequest(f"Multiple IDs found with provided prefix: {ref}")
                found = self._containers[id]
        if not found:
            raise NoSuchContainer.named(ref)
        return found

    def reserve(self, id: str, name: str | None) -> str:
        """Take a name, a random one for None. Raises BadRequest and Conflict."""
        name = checked_name(name) if name else random_name(self._names)
        if owner := self._names.get(name):
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = id
        return name

    def free(self, name: str) -> None:
        self._names.pop(name, None)

    def add(self, container: Container) -> None:
        """Let it be found; its name must be reserved."""
        self._containers[container.id] = container

    def restore(self, container: Container) -> None:
        """Add one that an earlier service made."""
        self._names[container.name] = container.id
        self.add(container)

    def rename(self, container: Container, name: str) -> None:
        """Raises BadRequest and Conflict, and nothing has changed then."""
        name = self.reserve(container.id, name)
        self.free(container.name)
        container.name = name

    def drop(self, container: Container) -> None:
        """Forget it and free its name."""
        if self._containers.pop(container.id, None):
            self.free(container.name)
