"""The registry's process: from its options to a listening socket, and down again.

As in the service, sockets are bound and secrets read while the process still is the user outside;
then it enters an outer user namespace of its own, since layers belong to subordinate ids. It shares
the state root with the service, whether that runs or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import resource
import signal
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxd import __version__, paths
from sandboxd.errors import BadRequest, Forbidden, SandboxError
from sandboxd.linux.idmap import IdMap, Kind
from sandboxd.listener import listen
from sandboxd.outer import enter, log_to_stderr

if TYPE_CHECKING:
    from sandboxd.registry_server import Settings

log: Final = logging.getLogger("sandboxd.registry")

_BACKLOG: Final = 1024
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Options:
    """`listen` is HOST:PORT (port 0: any that is free) or unix:///PATH; `ready_fd` is told the
    address, or why there is none."""

    listen: str
    read_only: bool = False
    token_file: Path | None = None
    htpasswd: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ready_fd: int | None = None
    idmap: Kind | None = None


def serve(options: Options) -> int:
    """Run the registry until it is told to stop; the exit status."""
    log_to_stderr()
    os.umask(0o077)
    try:
        with contextlib.ExitStack() as stack:
            root = paths.private_directory(paths.state_root())
            settings = settings_of(options)
            socks, shown = listeners(options, settings, stack)
            ids = enter(options.idmap)
            asyncio.run(_run(root, ids, socks, settings, shown, options.ready_fd))
    except SandboxError as error:
        log.error("%s", error)
        return 1
    return 0


async def _run(
    root: Path,
    ids: IdMap,
    socks: Sequence[socket.socket],
    settings: Settings,
    shown: str,
    ready_fd: int | None,
) -> None:
    from sandboxd.registry_server import serve as serve_registry
    from sandboxd.store import Store

    _allow_many_connections()
    store = Store(root, ids)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("registry %s on %s, state %s", __version__, shown, root)
    _tell(ready_fd, f"{shown}\n")
    try:
        await serve_registry(store, ids, socks, settings, stop)
    finally:
        store.close()
        log.info("stopped")


def _allow_many_connections() -> None:
    """The soft limit of 1024 is for programs that use select(2): getrlimit(2), RLIMIT_NOFILE."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell(fd: int | None, line: str) -> None:
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, line.encode())
        os.close(fd)


def settings_of(options: Options) -> Settings:
    """Raises BadRequest for files that cannot be used, and for an address that is none."""
    from sandboxd.registry_server import Access, Settings

    access = Access.load(
        read_only=options.read_only, token_file=options.token_file, htpasswd=options.htpasswd
    )
    is_tcp = not options.listen.startswith("unix:")
    # A web page cannot know a token; without one it must not get in by a name of its own.
    only_loopback = is_tcp and access.is_open and _is_loopback(_host(options.listen))
    return Settings(access, only_loopback, _tls(options))


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        what = f"the certificate {options.tls_cert}"
        raise BadRequest(what, str(error), "give --tls-cert and --tls-key as PEM") from None
    return context


def listeners(
    options: Options, settings: Settings, stack: contextlib.ExitStack
) -> tuple[Sequence[socket.socket], str]:
    """Bound sockets, and what a client calls them.

    Raises Forbidden for an address that others reach while everybody who reaches it may write.
    """
    if options.listen.startswith("unix:"):
        path = Path(options.listen.removeprefix("unix:").replace("//", "", 1))
        if not path.is_absolute():
            raise BadRequest(f"--listen {options.listen}", "not unix:///absolute/path")
        return [stack.enter_context(listen(path))], f"unix://{path}"
    host = _host(options.listen)
    if not _is_loopback(host) and settings.access.is_open and not settings.access.read_only:
        why = "others can reach this address, and whoever reaches it could write"
        mend = "--token-file FILE, --htpasswd FILE or --read-only, or listen on 127.0.0.1"
        raise Forbidden(f"--listen {options.listen}", why, mend)
    if not _is_loopback(host) and not settings.access.is_open and settings.tls is None:
        log.warning("tokens cross the network unencrypted: --tls-cert, or a proxy that does TLS")
    port = int(options.listen.rpartition(":")[2])
    sock = stack.enter_context(_bound(host, port))
    bound = sock.getsockname()
    name = f"[{bound[0]}]" if sock.family is socket.AF_INET6 else bound[0]
    return [sock], f"{'https' if settings.tls else 'http'}://{name}:{bound[1]}"


def _bound(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise BadRequest(f"listen on {host}:{port}", str(error), "--listen HOST:PORT") from None
    return sock


def _host(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535 or not (found["six"] or found["host"]):
        why = "neither HOST:PORT nor unix:///PATH"
        raise BadRequest(f"--listen {address}", why, "--listen 127.0.0.1:5000")
    return found["six"] or found["host"]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
