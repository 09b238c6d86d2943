"""The real thing, tried in a forked child that ends right after: nothing of it stays here.

A probe is a function that raises when its capability is missing and may return a few words. Those
that need a container's surroundings run as id 0 of an outer user namespace, as the service does.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from sandboxd.linux import idmap, mount, namespaces, syscalls, xattrs
from sandboxd.linux.openat2 import openat2 as resolve
from sandboxd.linux.syscalls import libc

_SECONDS: Final = 10
_QUIET: Final = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
_CALLS: Final = {
    "clone3": syscalls.SYS_CLONE3,
    "close_range": syscalls.SYS_CLOSE_RANGE,
    "pidfd_open": syscalls.SYS_PIDFD_OPEN,
    "pidfd_send_signal": syscalls.SYS_PIDFD_SEND_SIGNAL,
    "open_tree": syscalls.SYS_OPEN_TREE,
    "move_mount": syscalls.SYS_MOVE_MOUNT,
    "fsopen": syscalls.SYS_FSOPEN,
    "mount_setattr": syscalls.SYS_MOUNT_SETATTR,
}


class Outcome(NamedTuple):
    """How a probe went: `errno` is 0 for a failure that was no system call's."""

    ok: bool
    detail: str
    errno: int = 0


def attempt(probe: Callable[[], str]) -> Outcome:
    """Run `probe` in a forked child of its own, for at most ten seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer_in_child(probe, writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if text:
        return Outcome(*json.loads(text))
    return Outcome(False, f"the probe ended with status {os.waitstatus_to_exitcode(status)}")


def _answer_in_child(probe: Callable[[], str], writing: int) -> NoReturn:
    signal.alarm(_SECONDS)
    try:
        outcome = Outcome(True, probe())
    except OSError as error:
        outcome = Outcome(False, error.strerror or str(error), error.errno or 0)
    except Exception as error:
        outcome = Outcome(False, f"{type(error).__name__}: {error}")
    os.write(writing, json.dumps(outcome).encode())
    os._exit(0)


def inside(probe: Callable[[], str], ids: idmap.IdMap) -> Callable[[], str]:
    """`probe`, to run as id 0 of a fresh user and mount namespace under the id map `ids`."""

    def entered() -> str:
        idmap.enter_outer_namespace(ids)
        return probe()

    return entered


def user_namespace() -> str:
    """unshare, map one id, mount: Ubuntu 24.04 grants the first and refuses one of the others."""
    return inside(tmpfs, idmap.single())()


def tmpfs() -> str:
    mount.mount("probe", "/tmp", "tmpfs", _QUIET)
    return ""


def tmpfs_attributes() -> str:
    """User extended attributes on tmpfs, Linux 6.6: an overlay's upper directory needs them."""
    tmpfs()
    if not xattrs.supported("/tmp"):
        raise OSError(errno.EOPNOTSUPP, "no user attributes on tmpfs")
    return ""


def overlay_in_memory() -> str:
    tmpfs()
    return _overlay("/tmp")


def overlay_on(directory: str) -> Callable[[], str]:
    """An overlay whose upper directory is in `directory`."""
    return _in_scratch(directory, _overlay)


def _overlay(place: str) -> str:
    for name in ("lower", "lower/kept", "upper", "work", "merged"):
        os.mkdir(f"{place}/{name}")
    layers = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work,userxattr"
    mount.mount("probe", f"{place}/merged", "overlay", 0, layers)
    try:
        os.mkdir(f"{place}/merged/kept/new")
    finally:
        mount.umount(f"{place}/merged", 0)
    return ""


def whiteout_on(directory: str) -> Callable[[], str]:
    """A character device 0:0 made inside a user namespace, Linux 5.8: a layer's deleted file."""
    return _in_scratch(directory, _whiteout)


def _whiteout(place: str) -> str:
    os.mknod(f"{place}/whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    return ""


def _in_scratch(directory: str, use: Callable[[str], str]) -> Callable[[], str]:
    def probe() -> str:
        place = tempfile.mkdtemp(prefix="sandboxd-doctor-", dir=directory)
        try:
            return use(place)
        finally:
            shutil.rmtree(place)

    return probe


def container(kinds: tuple[str, ...]) -> Callable[[], str]:
    """Nested namespaces, all seven by one clone3, with fresh file systems of `kinds` mounted."""

    def probe() -> str:
        mapped, written = os.pipe()
        begun = time.perf_counter()
        pid, _ = namespaces.fork_into(namespaces.CONTAINER)
        if pid == 0:
            os.close(written)
            _mount_all_in_child(kinds, mapped)
        took = time.perf_counter() - begun
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("0 0 1\n")
        os.close(written)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise OSError(status, f"mount {' or '.join(kinds)}: {os.strerror(status)}")
        return f"{took * 1000:.1f} ms for all seven"

    return probe


def _mount_all_in_child(kinds: tuple[str, ...], mapped: int) -> NoReturn:
    """Exits with the errno of the mount that failed, 0 for none."""
    try:
        os.read(mapped, 1)
        for kind in kinds:
            mount.mount(kind, "/tmp", kind, _QUIET)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    os._exit(0)


def missing_calls() -> str:
    """Raises OSError(ENOSYS) naming the calls that the launcher needs and does not get.

    Each is made with arguments that no kernel accepts: one that exists complains about those.
    """
    missing = []
    for name, number in _CALLS.items():
        ctypes.set_errno(0)
        libc.syscall(number, -1, -1, -1, -1, -1)
        if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
            missing.append(name)
    if missing:
        raise OSError(errno.ENOSYS, ", ".join(missing))
    return ", ".join(_CALLS)


def openat2() -> str:
    """The call itself, not the walk that stands in for it."""
    os.close(resolve(mount.AT_FDCWD, "/", os.O_PATH))
    return ""
