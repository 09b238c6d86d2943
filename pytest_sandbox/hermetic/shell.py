"""One sandbox, as pytest holds it: fresh namespaces whose pid 1 waits and reaps.

The test's process is the sandbox's pid 2 or later, never pid 1: the kernel keeps signals from that
one (pid_namespaces(7)). PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from socket import socket


@dataclass(eq=False, slots=True)
class Shell:
    """A sandbox and the descriptors through which it is entered, looked at and ended."""

    pid: int
    """Of its pid 1, as this process's /proc shows it: `/proc/PID/root` is the sandbox's root."""
    pidfd: int
    uppers: int
    """An O_PATH descriptor of the directory, on the sandbox's own tmpfs, that holds for each of its
    writable mounts NUMBER/upper: what tests wrote, as overlayfs keeps it."""
    layout: Mapping[str, str]
    """NUMBER to the absolute path at which that mount lies: "0" to "/etc"… Fresh directories (/tmp,
    /dev/shm, the home) are among them; their upper is all that they hold."""
    control: socket = field(repr=False)
    """To pid 1, which lives as long as somebody holds the other end of this."""
    spec: str = field(default="", repr=False)
    """Which plan it was built from: shells of one spec are interchangeable."""
    used: int = 0
    """How many test processes have entered it."""
