"""Processes that a test left behind, as its own process sees them. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import os


def leftover_processes() -> list[str]:
    """`PID: command line` of everything in this sandbox but pid 1 and this process."""
    ours = {1, os.getpid()}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in ours and (command := _command(name)) is not None:
            found.append(f"{name}: {command}")
    return found


def _command(pid: str) -> str | None:
    """The command line; None for one that has ended, a zombie included."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read().replace(b"\0", b" ").strip()
        if line:
            return line.decode(errors="replace")
        with open(f"/proc/{pid}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        return None if rest.split()[0] == "Z" else name
    except OSError:
        return None
