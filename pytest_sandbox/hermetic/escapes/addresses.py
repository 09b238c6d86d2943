"""Socket addresses in another process's memory, and whether somebody listens there."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

LONGEST: Final = 128
"""sizeof(struct sockaddr_storage)."""
_LISTENING: Final = "0A"


class Address(NamedTuple):
    """An IP address and port, or the path of a unix socket with port 0."""

    family: int
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """What this machine itself answers for: connect(2) takes 0.0.0.0 and :: for it, too."""
        host = self.host.removeprefix("::ffff:")
        return host.startswith("127.") or host in ("::1", "0.0.0.0", "::")

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(sockaddr: bytes) -> Address | None:
    """ip(7), ipv6(7), unix(7); None for another family, an abstract name or too few bytes."""
    if len(sockaddr) < 2:
        return None
    (family,) = struct.unpack_from("=H", sockaddr)
    if family == socket.AF_INET and len(sockaddr) >= 8:
        return Address(family, socket.inet_ntop(family, sockaddr[4:8]), _port(sockaddr))
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        return Address(family, socket.inet_ntop(family, sockaddr[8:24]), _port(sockaddr))
    if family == socket.AF_UNIX and sockaddr[2:3] not in (b"", b"\0"):
        path = sockaddr[2:].partition(b"\0")[0]
        return Address(family, path.decode(errors="surrogateescape"), 0)
    return None


def _port(sockaddr: bytes) -> int:
    port: int = struct.unpack_from("!H", sockaddr, 2)[0]
    return port


def somebody_listens(pid: int, port: int) -> bool:
    """Whether the network namespace of `pid` has a TCP listener at the port: proc_pid_net(5).

    Any address counts: in a sandbox they all are of loopback.
    """
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as rows:
                for row in rows:
                    fields = row.split(maxsplit=4)
                    if fields[3] == _LISTENING and fields[1].endswith(wanted):
                        return True
        except OSError:
            continue
    return False
