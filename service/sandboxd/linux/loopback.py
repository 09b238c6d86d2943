"""The loopback interface and the low ports of a fresh network namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Final

_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_REQUEST: Final = struct.pack("16sh22x", b"lo", _IFF_UP)
"""struct ifreq with ifr_name and ifr_flags: netdevice(7)."""
_PORT_START: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


def bring_up() -> None:
    """Bring up `lo`: SIOCSIFFLAGS, netdevice(7); the kernel adds 127.0.0.1 and ::1 by itself.

    One ioctl where rtnetlink(7) needs a message and its acknowledgement. Needs CAP_NET_ADMIN in the
    user namespace that owns the network namespace. Raises OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _REQUEST)


def open_low_ports() -> None:
    """Let every process of this network namespace bind ports below 1024: ip(7), Linux 4.11.

    Needs CAP_NET_ADMIN as above, and a proc(5) that may be written. Raises OSError.
    """
    fd = os.open(_PORT_START, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)
