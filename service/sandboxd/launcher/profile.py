"""The default profile of every container: what it may do and what it sees of /proc, /sys and /dev.

One profile for create and exec. Docker's defaults, less the three capabilities that podman leaves
out too (MKNOD, NET_RAW, AUDIT_WRITE). The system call filter is in `seccomp_policy`.
"""

from __future__ import annotations

import glob
from functools import lru_cache
from typing import Final

from sandboxd.launcher.seccomp_policy import build_filter
from sandboxd.linux.seccomp import PreparedFilter

DEFAULT_CAPABILITIES: Final = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
"""What a container's root holds inside its own user namespace; another user holds none."""

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    *sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle")),
)
"""Covered: a file by /dev/null, a directory by an empty one. Some exist on few machines."""

READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
"""Readable, never writable."""

DEVICE_NODES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
"""Name in /dev to (major, minor): character devices bound from the host, all there are."""

DEVICE_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
"""Name in /dev to the target of a symbolic link."""


@lru_cache(maxsize=64)
def prepared_filter(capabilities: frozenset[str], fake_ownership: bool = False) -> PreparedFilter:
    """The system call filter for these capabilities (names without CAP_), ready to install.

    Made once for each set: a warm slot makes the default one before its container is known.
    """
    return PreparedFilter(build_filter(capabilities, fake_ownership=fake_ownership))
