"""Paths inside a root that nobody trusts: openat2(2), and a walk by descriptor where it is missing.

Everything is resolved beneath a directory descriptor: `..` stops there, an absolute symbolic link
starts there, a magic link of proc(5) leads nowhere. What is missing is made under the descriptor
of its parent, so no later change of a name can move the result outside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import Final, Self

from sandboxd.linux import syscalls
from sandboxd.linux.syscalls import syscall

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

_IN_ROOT: Final = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NODE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES: Final = 64
_MAX_LINKS: Final = 40
"""As many symbolic links as the kernel follows: path_resolution(7)."""


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6. EAGAIN, a rename or mount elsewhere in mid-walk, is tried again."""
    how = struct.pack("=QQQ", flags, mode, resolve)
    size, encoded = ctypes.c_size_t(len(how)), os.fsencode(path)
    for _ in range(_TRIES - 1):
        try:
            return syscall("openat2", path, syscalls.SYS_OPENAT2, dirfd, encoded, how, size)
        except BlockingIOError:
            continue
    return syscall("openat2", path, syscalls.SYS_OPENAT2, dirfd, encoded, how, size)


def open_beneath(
    dirfd: int, path: str, flags: int, mode: int = 0, *, resolve: int = _IN_ROOT
) -> int:
    """Open `path` as if `dirfd` were the root directory. Close-on-exec is set. Raises OSError.

    A kernel or an outer container's filter without openat2 (ENOSYS, EPERM) gets the walk, which
    knows RESOLVE_IN_ROOT alone: with any other `resolve` the error stands.
    """
    try:
        return openat2(dirfd, path, flags | os.O_CLOEXEC, mode, resolve)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM) or resolve != _IN_ROOT:
            raise
    return walk_beneath(dirfd, path, flags, mode)


def walk_beneath(dirfd: int, path: str, flags: int, mode: int = 0) -> int:
    """What `open_beneath` does, one component at a time, by openat(2) and readlinkat(2) alone."""
    with _Walk(dirfd, "open", path) as walk:
        name = walk.to_parent(follow=not flags & (os.O_NOFOLLOW | os.O_EXCL))
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=walk.here)


def make_directories(rootfd: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the directory `path` beneath `rootfd`; what is missing is made.

    Symbolic links lead on inside the root, a dangling one to a directory made at its target.
    Raises OSError: NotADirectoryError where a file stands in the way.
    """
    try:
        return open_beneath(rootfd, path, _DIRECTORY)
    except FileNotFoundError:
        pass
    with _Walk(rootfd, "make directories", path, mode) as walk:
        walk.to_end()
        return os.open(".", _DIRECTORY, dir_fd=walk.here)


def make_file(rootfd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of the file `path` beneath `rootfd`, made empty when it is missing.

    Missing directories above it are made with mode 0755. An existing file of any type is left as
    it is and never opened, so that a FIFO blocks nobody. Raises OSError: IsADirectoryError.
    """
    try:
        found = open_beneath(rootfd, path, os.O_PATH)
    except FileNotFoundError:
        return _make_missing_file(rootfd, path, mode)
    if stat.S_ISDIR(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EISDIR, f"make file {path}: {os.strerror(errno.EISDIR)}")
    return found


def _make_missing_file(rootfd: int, path: str, mode: int) -> int:
    with _Walk(rootfd, "make file", path, 0o755) as walk:
        name = walk.to_parent(follow=True)
        try:
            os.close(os.open(name, _NEW_FILE, mode, dir_fd=walk.here))
        except FileExistsError:
            pass
        return os.open(name, _NODE, dir_fd=walk.here)


class _Walk:
    """A walk along `path` from a root, as a stack of O_PATH descriptors: `..` takes the last off.

    As a context manager it closes them, and a failure inside names the call and the whole path.
    With `make`, missing directories are created with that mode.
    """

    def __init__(self, rootfd: int, call: str, path: str, make: int | None = None) -> None:
        self._call, self._path, self._make = call, path, make
        self._ahead = _components(path)
        self._links = 0
        self._stack = [os.open(".", _DIRECTORY, dir_fd=rootfd)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._back_to(0)
        if isinstance(error, OSError) and error.errno is not None:
            text = f"{self._call} {self._path}: {os.strerror(error.errno)}"
            raise OSError(error.errno, text) from error

    @property
    def here(self) -> int:
        """The directory reached so far; the walk owns it."""
        return self._stack[-1]

    def to_end(self) -> None:
        """Go all the way; `here` is then what the path names."""
        while self._ahead:
            self._step()

    def to_parent(self, *, follow: bool) -> str:
        """Go to the directory that holds the last component, and return its name ("." at the root).

        With `follow`, a symbolic link there leads on; the name is then that of its final target.
        """
        while self._ahead:
            if len(self._ahead) > 1 or self._ahead[0] == "..":
                self._step()
                continue
            name = self._ahead.pop()
            target = self._target(name) if follow else None
            if target is None:
                return name
            self._turn(target)
        return "."

    def _step(self) -> None:
        name = self._ahead.pop()
        if name == "..":
            self._back_to(max(1, len(self._stack) - 1))
            return
        try:
            self._stack.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.here))
        except NotADirectoryError:
            target = self._target(name)
            if target is None:
                raise
            self._turn(target)
        except FileNotFoundError:
            if self._make is None:
                raise
            self._stack.append(self._made(name, self._make))

    def _made(self, name: str, mode: int) -> int:
        try:
            os.mkdir(name, mode, dir_fd=self.here)
        except FileExistsError:
            pass
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.here)

    def _target(self, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=self.here)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            return None

    def _turn(self, target: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            self._back_to(1)
        self._ahead += _components(target)

    def _back_to(self, depth: int) -> None:
        while len(self._stack) > depth:
            os.close(self._stack.pop())


def _components(path: str) -> list[str]:
    """The names of a path, the first one last, so that `pop` gives the next."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
