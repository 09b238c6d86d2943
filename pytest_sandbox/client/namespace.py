"""Entering the user namespace that the service's containers lie in."""

from __future__ import annotations

import os

from pytest_sandbox.errors import HostLacks


def open_user_namespace(pid: int, inode: int) -> int:
    """The user namespace of that process, which must be the one with this inode number.

    Another pid namespace than the service's has other pids, or none: HostLacks.
    """
    try:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unseen(f"{error}") from None
    if os.fstat(fd).st_ino == inode:
        return fd
    os.close(fd)
    raise _unseen(f"process {pid} is another one here")


def _unseen(why: str) -> HostLacks:
    mend = "start the service in the same pid namespace: sandboxctl service start"
    return HostLacks("find the service's user namespace", why, mend)
