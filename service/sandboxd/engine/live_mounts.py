"""What is mounted in a running container, as its processes see it."""

from __future__ import annotations

import os


def mounted_in(pid: int) -> frozenset[str]:
    """The mount points in the namespace of a process, below its root, without the slash in front.

    proc_pid_mountinfo(5); none where the process has ended.
    """
    try:
        with open(f"/proc/{pid}/mountinfo") as lines:
            points = [line.split()[4] for line in lines]
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    # Blanks and backslashes are written in octal.
    decoded = (point.encode().decode("unicode_escape") for point in points)
    return frozenset(
        os.fsdecode(point.encode("latin-1")).strip("/") for point in decoded if point != "/"
    )
