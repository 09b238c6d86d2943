"""Who is on the other end: only the user that the service runs as.

The socket's modes (0600 in a 0700 directory) keep others out already; this check also holds when
a descriptor or the path has been passed on. SO_PEERCRED is answered in terms of the service's own
user namespace: the user appears as the id that the service has there (0), everybody whom the map
leaves out as the overflow id 65534.
"""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


def peer_uid(sock: socket.socket) -> int:
    """The user id of the process that connected, as of its connect(2): unix(7), SO_PEERCRED."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(raw)
    return int(uid)


def is_own_user(sock: socket.socket) -> bool:
    return peer_uid(sock) == os.geteuid()
