"""Serving the registry on a listening socket until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Final

from aiohttp import web

from sandboxd.linux.idmap import IdMap
from sandboxd.registry_server.access import Access
from sandboxd.registry_server.app import App
from sandboxd.registry_server.local_images import LocalImages
from sandboxd.registry_server.reclaiming import collect_if_alone
from sandboxd.registry_server.repositories import Repositories
from sandboxd.registry_server.surface import BLOB_MAX, STALL, Surface
from sandboxd.registry_server.uploads import Uploads
from sandboxd.store import Store
from sandboxd.threads import in_thread

log = logging.getLogger("sandboxd.registry")

_BACKLOG: Final = 1024
_TIDY_EVERY: Final = 300.0
_SHUTDOWN: Final = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`only_loopback`: answer to loopback names only; `patience` for silent uploads and `stall` for
    bodies that stand still, both in seconds; `blob_max` in bytes."""

    access: Access = field(default_factory=Access)
    only_loopback: bool = False
    tls: ssl.SSLContext | None = None
    patience: float = 3600.0
    stall: float = STALL
    blob_max: int = BLOB_MAX


async def serve(
    store: Store, idmap: IdMap, socks: Sequence[socket], settings: Settings, stop: asyncio.Event
) -> None:
    """Answer on `socks`, bound stream sockets, which are closed at the end. Requests in flight have
    5 seconds once `stop` is set."""
    repositories = Repositories(store)
    uploads = Uploads(store, settings.patience)
    surface = Surface(
        store,
        repositories,
        LocalImages(store, idmap),
        uploads,
        settings.access,
        settings.stall,
        settings.blob_max,
    )
    loop = asyncio.get_running_loop()
    app = App(surface, only_loopback=settings.only_loopback)
    # A handler whose client leaves goes on: its body breaks off, and what came of it is kept.
    server = web.Server(app)
    listeners = [
        await loop.create_server(server, sock=sock, backlog=_BACKLOG, ssl=settings.tls)
        for sock in socks
    ]
    tidying = asyncio.create_task(_tidy(store, repositories, uploads, settings.patience))
    try:
        await stop.wait()
    finally:
        tidying.cancel()
        for listener in listeners:
            listener.close()
        server.pre_shutdown()
        await server.shutdown(_SHUTDOWN)
        uploads.close()


async def _tidy(
    store: Store, repositories: Repositories, uploads: Uploads, patience: float
) -> None:
    """Give up silent uploads, blobs that no manifest names, the space of what was deleted."""
    seen = -1
    while True:
        gone, loose = uploads.drop_silent(), await in_thread(repositories.forget_unnamed)
        if gone or loose:
            log.info("%d uploads expired, %d blobs without a manifest given up", gone, loose)
        if repositories.deletions != seen:
            seen = repositories.deletions
            reclaimed = await in_thread(lambda: collect_if_alone(store))
            if reclaimed is not None and reclaimed.size:
                log.info("%d bytes reclaimed", reclaimed.size)
        await asyncio.sleep(min(_TIDY_EVERY, max(patience / 2, 1.0)))
