"""The facts without which a figure means nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

TOUCHED = 3 * 2**30
"""Bytes written once before measuring: a virtual machine's memory that has been free for a while
may have gone back to its host, and the first touch then costs up to ten times as much."""

_VERSIONS = {
    "bwrap": ["bwrap", "--version"],
    "runc": ["runc", "--version"],
    "podman": ["podman", "--version"],
    "dockerd": ["dockerd", "--version"],
    "cc": ["cc", "--version"],
}


def facts() -> dict[str, object]:
    """Processor, memory, kernel, file system, versions, user and load, as JSON-ready values."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "python": sys.version.split()[0],
        "user": "root" if os.geteuid() == 0 else "ordinary user",
        "load": list(os.getloadavg()),
        "versions": {name: _first_line(argv) for name, argv in _VERSIONS.items()},
    }


def touch_memory() -> None:
    """Write a few GiB once, as far as half of the available memory goes."""
    available = int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024
    bytearray(min(TOUCHED, available // 2))


def _field(path: str, name: str, separator: str = ":") -> str:
    for line in Path(path).read_text().splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return "unknown"


def _first_line(argv: list[str]) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0] or None
