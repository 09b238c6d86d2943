"""Volumes over a real store, in the places where a service has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandboxd.linux import idmap
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.volumes import Volume, Volumes

Opened = tuple[Store, Volumes]
OpenVolumes = Callable[..., AbstractContextManager[Opened]]


@pytest.fixture
def volumes(tmp_path: Path) -> OpenVolumes:
    """Opens a store and its volumes; call it inside the namespace. The second time is a restart."""

    @contextmanager
    def opened(ids: IdMap | None = None, **options: Any) -> Iterator[Opened]:
        ids = ids or idmap.choose()
        runtime = tmp_path / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        store = Store(tmp_path / "root", ids)
        made = Volumes(store, ids, runtime, **options)
        yield store, made
        made.close()
        store.close()

    return opened


@pytest.fixture
def at() -> Callable[[Volumes, Volume], AbstractContextManager[Path]]:
    """A volume's content through a fresh mount of it, as a container sees it."""

    @contextmanager
    def mounted(volumes: Volumes, volume: Volume, **options: Any) -> Iterator[Path]:
        fd = volumes.mount(volume, **options)
        try:
            yield Path(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    return mounted
