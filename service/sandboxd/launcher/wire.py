"""Messages between the service, the fork server and its slots: SOCK_SEQPACKET, descriptors beside.

A message is a tuple of plain values in `marshal` form (both ends are one installation on one
interpreter, and nobody else holds the socket). One that outgrows a packet travels as a memfd.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

Message = tuple[Any, ...]

_PACKET: Final = 64 * 1024
_INLINE: Final = b"i"
_MEMFD: Final = b"m"
_MAX_FDS: Final = 253
"""SCM_MAX_FD of the kernel: unix(7)."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message and copies of `fds`. Raises OSError when the other end is gone.

    A full buffer blocks, or raises BlockingIOError with MSG_DONTWAIT in `flags`.
    """
    body = marshal.dumps(message)
    if len(body) < _PACKET:
        _send(end, _INLINE + body, fds, flags)
        return
    memfd = os.memfd_create("sandbox-message", os.MFD_CLOEXEC)
    try:
        with open(memfd, "wb", closefd=False) as file:
            file.write(body)
        _send(end, _MEMFD, [*fds, memfd], flags)
    finally:
        os.close(memfd)


def _send(end: socket.socket, packet: bytes, fds: Sequence[int], flags: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([packet], rights, flags | socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[Message, list[int]]:
    """One message and its descriptors, close-on-exec. Raises EOFError when the other end closed."""
    packet, ancillary, _, _ = end.recvmsg(
        _PACKET + 1, socket.CMSG_SPACE(_MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds = list(_descriptors(ancillary))
    if not packet:
        raise EOFError("the other end closed")
    if packet[:1] == _INLINE:
        return marshal.loads(packet[1:]), fds
    memfd = fds.pop()
    with open(memfd, "rb") as file:
        file.seek(0)
        return marshal.loads(file.read()), fds


def through_a_socket(message: Message, fds: Sequence[int]) -> tuple[Message, list[int]]:
    """Send a message to oneself: to rehearse, or to see what the other side would get."""
    ours, theirs = pair()
    with ours, theirs:
        send(ours, message, fds)
        return receive(theirs)


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> Iterable[int]:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            yield from memoryview(data[: len(data) - len(data) % 4]).cast("i")
