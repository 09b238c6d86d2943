"""Disk space of what was deleted, on a machine where no service would reclaim it.

What collects must know everything that is in use. While the service runs, only it does, and it
collects at its next start or prune. Where none runs, this process takes the service's place: it
holds the service's lock, for which a service that starts meanwhile waits a moment.
"""

from __future__ import annotations

from filelock import FileLock, Timeout

from sandboxd.store import Reclaimed, Store


def collect_if_alone(store: Store) -> Reclaimed | None:
    """Collect, unless a service runs: then None. Blocks."""
    lock = FileLock(store.root / "service.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return store.collect()
    finally:
        lock.release()
