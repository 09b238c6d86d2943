"""Which of pytest's open descriptors a test's process keeps.

Kept: the standard streams, what captures them, files that may only be read, and what fixtures of a
wider scope opened. Closed: what pytest itself inherited. Everything else, through which a test
could reach the host or another test (directories, sockets, files to write), is replaced by
/dev/null: its number stays taken, since an object of Python's may still close it.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

_HARMLESS: Final = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]")


def opened() -> frozenset[int]:
    """All descriptors of this process, less that of the look itself: to find out which a fixture
    opens."""
    return frozenset(fd for fd in map(int, os.listdir("/proc/self/fd")) if _target(fd))


def clean_in_child(config: pytest.Config, kept: frozenset[int]) -> None:
    """Close and replace in this process what is not to be kept."""
    kept = kept | {0, 1, 2} | frozenset(_pytests(config))
    targets = {fd: _target(fd) for fd in opened()}
    pipes = Counter(target for target in targets.values() if target.startswith("pipe:"))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in sorted(targets.keys() - kept - {null}):
        if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
            os.close(fd)
        elif not _is_harmless(fd, targets[fd], pipes):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _is_harmless(fd: int, target: str, pipes: Counter[str]) -> bool:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    kind = os.fstat(fd).st_mode
    if flags & os.O_PATH or stat.S_ISDIR(kind):
        return False
    if stat.S_ISREG(kind):
        return flags & os.O_ACCMODE == os.O_RDONLY
    if stat.S_ISSOCK(kind):
        return _is_unnamed_pair(fd)
    if stat.S_ISFIFO(kind):
        return pipes[target] > 1
    return stat.S_ISCHR(kind) or target in _HARMLESS


def _is_unnamed_pair(fd: int) -> bool:
    """A stream socketpair, such as event loops wake themselves with. (Ours have packets.)"""
    with socket.socket(fileno=os.dup(fd)) as copy:
        if copy.family != socket.AF_UNIX or copy.type != socket.SOCK_STREAM:
            return False
        try:
            return not copy.getsockname() and not copy.getpeername()
        except OSError:
            return False


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _pytests(config: pytest.Config) -> Iterator[int]:
    """Descriptors of pytest's capture, of its log file, of faulthandler's copy of stderr."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    capturing = getattr(manager, "_global_capturing", None)
    for stream in ("in_", "out", "err"):
        capture = getattr(capturing, stream, None)
        yield from _numbers(getattr(capture, "targetfd_save", None))
        for holder in (capture, getattr(capture, "syscapture", None)):
            yield from _numbers(getattr(holder, "tmpfile", None))
    logging: Any = config.pluginmanager.get_plugin("logging-plugin")
    yield from _numbers(getattr(getattr(logging, "log_file_handler", None), "stream", None))
    yield from _numbers(config.stash.get(fault_handler_stderr_fd_key, None))


def _numbers(stream: Any) -> Iterator[int]:
    if type(stream) is int:
        yield stream
        return
    try:
        yield stream.fileno()
    except (AttributeError, OSError, ValueError):
        return
