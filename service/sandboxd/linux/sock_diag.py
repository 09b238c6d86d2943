"""Whether somebody listens on a TCP port: sock_diag(7), one look-up where /proc/net/tcp would have
the kernel walk all connections of the machine.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_REQUEST: Final = struct.Struct("=BBBxI")
"""struct inet_diag_req_v2 without its id: family, protocol, extensions, states."""
_ID: Final = struct.Struct("!HH16s16sI8s")
"""struct inet_diag_sockid: ports, addresses, interface, cookie."""
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = b"\xff" * 8
_LISTEN: Final = 10
_ANSWER_MAX: Final = 4096


class ListenerTable:
    """The listeners of the network namespace in which this object was made."""

    def __init__(self) -> None:
        """Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        self._socket.setblocking(False)  # the kernel answers before sendto returns

    def has(self, family: int, address: str, port: int) -> bool:
        """Whether a connection to that address and port would find a listener.

        False also where the kernel lacks the module (INET_DIAG). Raises OSError.
        """
        packed = socket.inet_pton(family, address)
        here = _ID.pack(port, 0, packed, packed, 0, _NO_COOKIE)
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + here
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body)
        answer = self._socket.recv(_ANSWER_MAX)
        kind = _HEADER.unpack_from(answer)[1]
        return kind == _SOCK_DIAG_BY_FAMILY and answer[_HEADER.size + 1] == _LISTEN

    def close(self) -> None:
        self._socket.close()
