"""A fork server that stays in the machine's network, for containers that ask for it.

The usual one unshares its network and cannot come back: setns(2) into the machine's namespace takes
a capability that its user does not have. This one is started with the first container that needs
it, and ends with the service. By then the service has threads, where nothing may be forked: a fresh
interpreter forks instead, stays as the parent, and ends as the fork server does.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from sandboxd.linux import mount, namespaces
from sandboxd.linux import process as own_process

_ENTRY: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from sandboxd.launcher.host_network import main; main(int(sys.argv[2]), *sys.argv[3:])"
)
_SERVICE: Final = 3


Arguments = tuple[str, str, str, str]
"""The store and the memory, as in `Launcher.spawn`, and both id maps."""


def start(service: int, arguments: Arguments) -> int:
    """The pid of the parent of a new fork server, which gets the socket `service`. OSError."""
    roots = __file__.rsplit("/sandboxd/", 1)[0]
    command = [sys.executable, "-I", "-S", "-c", _ENTRY, roots, str(_SERVICE), *arguments]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, service, _SERVICE),
    ]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    return os.posix_spawn(sys.executable, command, environment, file_actions=actions)


def main(service: int, *arguments: str) -> NoReturn:
    """Entry of the fresh interpreter; the arguments as of `start`."""
    own_process.close_from(_SERVICE + 1)
    pid, _ = namespaces.fork_into(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS)
    if pid == 0:
        _serve_in_child(service, arguments)
    os.close(service)
    own_process.set_name("sandbox-launch")
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _serve_in_child(service: int, arguments: tuple[str, ...]) -> NoReturn:
    store, memory, uid_map, gid_map = arguments
    # Here, and not in the service, which would carry all that the fork server needs.
    from sandboxd.launcher import server

    try:
        mount.make_private()
        mount.mount("proc", "/proc", "proc", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
        server.main(service, store, memory, uid_map, gid_map, "host")
    except BaseException as error:
        os.write(2, f"sandboxd: launcher: {error}\n".encode())
    os._exit(125)
