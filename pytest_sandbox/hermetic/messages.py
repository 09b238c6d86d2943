"""Messages between pytest, the maker, its shells, the zygote and the tests. PYTEST_DONT_REWRITE

Commands are small tuples in `marshal` form with descriptors beside them (SOCK_SEQPACKET): all ends
are one interpreter, and nobody else holds the sockets. Reports go the other way as pickles on a
stream, because tests put objects of any kind into them; who could forge one has already been
imported by pytest when it collected the test.
"""

from __future__ import annotations

import array
import marshal
import socket
from collections.abc import Sequence
from typing import Any, Final

Message = tuple[Any, ...]

_PACKET: Final = 160 * 1024
_FDS: Final = socket.CMSG_SPACE(16 * 4)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends for commands, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one command and copies of `fds`. Raises OSError when the other end is gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([marshal.dumps(message)], rights, socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[Message, list[int]]:
    """One command and its descriptors, close-on-exec. Raises EOFError when the other end closed."""
    packet, ancillary, _, _ = end.recvmsg(_PACKET, _FDS, socket.MSG_CMSG_CLOEXEC)
    if not packet:
        raise EOFError("the other end closed")
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return marshal.loads(packet), list(fds)
