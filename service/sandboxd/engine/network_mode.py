"""Whose network namespace a container gets: a fresh one, the machine's, or another one's.

`HostConfig.NetworkMode` is `host` or `container:ID` as in Docker, or `pid:PID` of a process that
the API's caller owns. A container that joins has no capability over that namespace, which belongs
to whoever made it; in all but the machine's, ports below 1024 are open to it all the same, as they
are in Docker's containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.registry import Registry
from sandboxd.errors import BadRequest, CannotEnforce, Conflict, Forbidden, NotFound
from sandboxd.launcher.client import HOST_NETWORK
from sandboxd.linux import namespaces, pidfd

if TYPE_CHECKING:
    from sandboxd.launcher.client import Launcher

_OWN: Final = frozenset({"", "default", "bridge", "none"})
HOST: Final = "host"
_CONTAINER: Final = "container:"
_PID: Final = "pid:"
_WHY: Final = "a container's network is its own and empty until the networks issue"
_MEND: Final = "--network none, host, container:ID or pid:PID"


def parse(mode: str) -> str:
    """What is to be joined, empty for a fresh namespace. Raises CannotEnforce and BadRequest."""
    if mode in _OWN:
        return ""
    if mode == HOST or (mode.startswith(_CONTAINER) and mode != _CONTAINER):
        return mode
    if mode.startswith(_PID):
        if not mode.removeprefix(_PID).isdecimal():
            raise BadRequest(f"NetworkMode={mode!r}", "pid: is followed by the number of a process")
        return mode
    raise CannotEnforce(f"NetworkMode={mode!r}", _WHY, _MEND)


def refuse_sysctls(joined: str, sysctls: tuple[tuple[str, str], ...]) -> None:
    """Raises CannotEnforce for a setting of a network namespace that is somebody else's."""
    for name, _ in sysctls:
        if joined and name.startswith("net."):
            why = f"the network namespace belongs to {joined}"
            raise CannotEnforce(f"sysctl {name!r}", why, "set it there")


def with_id(body: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """The create body, in which the container to join has its id. Raises NoSuchContainer."""
    host = body.get("HostConfig")
    if not isinstance(host, Mapping):
        return body
    mode = host.get("NetworkMode")
    if not isinstance(mode, str) or not mode.startswith(_CONTAINER) or mode == _CONTAINER:
        return body
    found = registry.find(mode.removeprefix(_CONTAINER))
    return {**body, "HostConfig": {**host, "NetworkMode": f"{_CONTAINER}{found.id}"}}


@contextmanager
def opened(joined: str, registry: Registry, launcher: Launcher) -> Iterator[int | None]:
    """A descriptor of the namespace to join or HOST_NETWORK, None for a fresh one.

    Raises NotFound without such a process or container, Conflict for a container that does not run,
    Forbidden for a namespace that is not the caller's to give.
    """
    if joined in ("", HOST):
        yield HOST_NETWORK if joined else None
        return
    if joined.startswith(_PID):
        fd = _of_process(int(joined.removeprefix(_PID)), launcher.pid)
    else:
        fd = _of_container(joined.removeprefix(_CONTAINER), registry)
    try:
        yield fd
    finally:
        os.close(fd)


def _of_container(reference: str, registry: Registry) -> int:
    container = registry.find(reference)
    if container.program is None:
        what = f"cannot join network of a non running container: {container.id}"
        raise Conflict(what, mend=f"docker start {container.name}")
    running = container.program.running
    return _open(running.pid, running.pidfd)


def _of_process(pid: int, launcher_pid: int) -> int:
    """Every caller of the API is the user that the service runs as: see sandboxd.api.peer."""
    try:
        process = pidfd.pidfd_open(pid)
    except OSError as error:
        raise _no_process(pid) from error
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            raise _forbidden(pid, "the process is another user's")
        fd = _open(pid, process)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _no_process(pid) from error
    except PermissionError as error:
        raise _forbidden(pid, "the process is out of the service's reach") from error
    finally:
        os.close(process)
    try:
        _check_namespace(fd, pid, launcher_pid)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(pid: int, process: int) -> int:
    """The namespace of the process that the pidfd means. Raises ProcessLookupError."""
    fd = namespaces.open_namespace(pid, "net")
    try:
        pidfd.pidfd_send_signal(process, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_namespace(fd: int, pid: int, launcher_pid: int) -> None:
    own = [os.stat(f"/proc/{each}/ns/net").st_ino for each in ("self", launcher_pid)]
    if os.fstat(fd).st_ino in own:
        raise _forbidden(pid, "its network is the service's own")
    try:
        os.close(namespaces.owner(fd))
    except PermissionError:
        why = "its network namespace belongs to no user namespace of the service"
        raise _forbidden(pid, why) from None


def _no_process(pid: int) -> NotFound:
    return NotFound(f"No such process: {pid}", mend="give the pid that the service sees")


def _forbidden(pid: int, why: str) -> Forbidden:
    mend = "unshare its network in the user namespace that GET /sandbox/namespace names"
    return Forbidden(f"join the network of process {pid}", why, mend)
