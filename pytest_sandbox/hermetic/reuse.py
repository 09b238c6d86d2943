"""Whether a sandbox is as it was when it was built: asked of its pid 1 after a test has ended.

No test's process can answer that, and no count alone: what is compared is the room on the tmpfs
that takes every write, the change times of every directory that was there from the start (chmod,
utime, xattrs and a file that came and went leave their mark there), the lists of the ipc namespace,
the traffic and sockets of the network, and pid 1's children. In doubt it is dirty.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from sandboxd.linux import keyring

_IPC: Final = ("shm", "msg", "sem")


class Handles(NamedTuple):
    """Open before the first test: where to look, whatever happens to the paths."""

    uppers: int
    roots: tuple[int, ...]
    """O_PATH descriptors of all that is on its own file systems from the start."""
    own: int
    """Of pid 1's own directory in /proc."""
    last_pid: int
    """ns_last_pid of proc_sys_kernel(5), to be written."""
    network: bool
    """Whether nobody else is in its network."""


def open_handles(uppers: int, last_pid: int, numbers: Sequence[str], *, network: bool) -> Handles:
    """To be called when the root is complete. Raises OSError."""
    flags = os.O_PATH | os.O_CLOEXEC
    roots = []
    for number in numbers:
        for _, _, files, at in os.fwalk(f"{number}/upper", dir_fd=uppers):
            roots.append(os.open(".", flags, dir_fd=at))
            roots += [os.open(name, flags | os.O_NOFOLLOW, dir_fd=at) for name in files]
    roots += [os.open(path, flags) for path in ("/dev", "/dev/mqueue", "/dev/pts")]
    return Handles(uppers, tuple(roots), os.open("/proc/1", flags), last_pid, network)


def state(handles: Handles) -> tuple[object, ...]:
    """All that must not change; equal to that of the beginning means clean."""
    room = os.fstatvfs(handles.uppers)
    found: list[object] = [room.f_bfree, room.f_ffree]
    for root in handles.roots:
        at = os.fstat(root)
        found.append((at.st_ctime_ns, at.st_mode, at.st_uid, at.st_gid))
    found += [_read(f"sysvipc/{kind}") for kind in _IPC]
    if handles.network:
        found += [_read(f"net/{name}") for name in ("dev", "unix")]
    found.append(os.listdir("/dev/mqueue"))
    found.append(keyring.users_keys())
    return tuple(found)


def children(handles: Handles) -> list[int]:
    """Processes that outlived the test, by their pids in the sandbox: proc_tid_children(5).

    Everything that is left of a test is a child of pid 1 or below one.
    """
    fd = os.open("task/1/children", os.O_RDONLY | os.O_CLOEXEC, dir_fd=handles.own)
    with open(fd) as file:
        return [int(pid) for pid in file.read().split()]


def describe(pids: Sequence[int]) -> list[str]:
    """`PID: command line` of each that is still there."""
    found = []
    for pid in pids:
        command = _read(f"{pid}/cmdline").replace("\0", " ").strip()
        if command or os.path.exists(f"/proc/{pid}"):
            found.append(f"{pid}: {command or '?'}")
    return found


def begin_again(handles: Handles) -> None:
    """The next test's first process gets the pid that the first one got."""
    os.pwrite(handles.last_pid, b"1", 0)


def _read(name: str) -> str:
    try:
        with open(f"/proc/{name}") as file:
            return file.read()
    except OSError:
        return ""
