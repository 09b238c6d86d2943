"""Every image runs every test once; how its own workers share them is xdist's `--dist`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pytest

Worker = Any
"""xdist's WorkerController: xdist has no types."""


class Scheduling(Protocol):
    """What the controller wants of a scheduler: xdist.scheduler.protocol."""

    @property
    def nodes(self) -> list[Worker]: ...

    @property
    def collection_is_completed(self) -> bool: ...

    @property
    def tests_finished(self) -> bool: ...

    @property
    def has_pending(self) -> bool: ...

    def add_node(self, node: Worker) -> None: ...

    def add_node_collection(self, node: Worker, collection: Sequence[str]) -> None: ...

    def mark_test_complete(self, node: Worker, item_index: int, duration: float = 0) -> None: ...

    def mark_test_pending(self, item: str) -> None: ...

    def remove_pending_tests_from_node(self, node: Worker, indices: Sequence[int]) -> None: ...

    def remove_node(self, node: Worker) -> str | None: ...

    def schedule(self) -> None: ...


class MatrixScheduling:
    """One of xdist's schedulers for each image; a worker's image says which one it belongs to."""

    def __init__(
        self,
        config: pytest.Config,
        image_of: Callable[[Worker], str],
        schedulers: Mapping[str, Scheduling],
    ) -> None:
        self.config = config
        """As all of xdist's have it: pytest-rerunfailures asks for it."""
        self._image_of = image_of
        self._schedulers = dict(schedulers)
        self._left = next(iter(self._schedulers.values()))
        """The one that lost a worker last: a test that it is to run again is its own."""

    def _of(self, node: Worker) -> Scheduling:
        return self._schedulers[self._image_of(node)]

    @property
    def nodes(self) -> list[Worker]:
        return [node for each in self._schedulers.values() for node in each.nodes]

    @property
    def collection_is_completed(self) -> bool:
        return all(each.collection_is_completed for each in self._schedulers.values())

    @property
    def tests_finished(self) -> bool:
        return all(each.tests_finished for each in self._schedulers.values())

    @property
    def has_pending(self) -> bool:
        return any(each.has_pending for each in self._schedulers.values())

    def add_node(self, node: Worker) -> None:
        self._of(node).add_node(node)

    def add_node_collection(self, node: Worker, collection: Sequence[str]) -> None:
        self._of(node).add_node_collection(node, collection)

    def mark_test_complete(self, node: Worker, item_index: int, duration: float = 0) -> None:
        self._of(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        self._left.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: Worker, indices: Sequence[int]) -> None:
        self._of(node).remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: Worker) -> str | None:
        self._left = self._of(node)
        return self._left.remove_node(node)

    def schedule(self) -> None:
        for each in self._schedulers.values():
            each.schedule()
