"""Serving the API on a listening unix socket until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxd.api.app import App
from sandboxd.api.connection import Connection
from sandboxd.api.hangups import Hangups
from sandboxd.api.surface import Activity, Surface

if TYPE_CHECKING:
    from sandboxd.engine import Engine

_BACKLOG = 1024


async def serve(
    engine: Engine,
    sock: socket.socket,
    stop: asyncio.Event,
    *,
    activity: Activity | None = None,
    shutdown_timeout: float = 1.0,
) -> None:
    """Answer clients on `sock`, a bound unix stream socket, until `stop` is set.

    `activity`, if given, is kept up to date for whoever decides that the service is idle.
    Once it is, streams end at once, and other requests in flight have `shutdown_timeout` seconds
    before they are cancelled. The socket is closed at the end; its file is the caller's.
    """
    surface = Surface(
        engine,
        stop=stop.set,
        socket_path=str(sock.getsockname()),
        activity=activity or Activity(),
    )
    loop = asyncio.get_running_loop()
    server = web.Server(App(surface), handler_cancellation=True)
    with Hangups(loop) as hangups:
        # Not create_unix_server: since Python 3.13 it removes the socket's file, systemd's too.
        listener = await loop.create_server(
            lambda: Connection(server, hangups), sock=sock, backlog=_BACKLOG
        )
        try:
            await stop.wait()
        finally:
            listener.close()
            surface.end_streams()
            server.pre_shutdown()
            await server.shutdown(shutdown_timeout)
            await surface.settle()
