"""Unpacks an archive into a directory inside a container's root, which may be running.

Names are resolved as inside the container, by openat2(2) with RESOLVE_IN_ROOT: a symbolic link
leads where it leads for its programs, and nothing leads outside, not even when they swap
directories for links meanwhile (CVE-2018-15664).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxd.errors import BadRequest, Forbidden, SandboxError
from sandboxd.images.tar import Kind, Member, TarReader
from sandboxd.linux.openat2 import make_directories

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_MAPPED = errno.EINVAL
"""chown(2) to an id that the user namespace does not have."""


class TreeExtraction:
    """Puts the members of an archive below `target`, a directory path beneath `root`.

    With `strict` nothing that is a directory becomes something else, nor the reverse.
    """

    def __init__(self, root: int, target: str, *, strict: bool) -> None:
        self._root, self._target, self._strict = root, target, strict
        self._directories: list[tuple[str, Member]] = []

    def extract(self, archive: TarReader) -> None:
        """Raises BadRequest for a member that cannot be, Forbidden where it may not be written."""
        for member in archive:
            with _explained(member.name):
                self._extract(member, archive)
        # Last, deepest first: a directory may forbid writing, and writing changes its time.
        for path, member in reversed(self._directories):
            with _explained(member.name), self._directory(path) as fd:
                _set_attributes(fd, ".", member)

    def _extract(self, member: Member, archive: TarReader) -> None:
        *above, name = _components(member.name) or [""]
        parent_path = "/".join((self._target, *above))
        if not name:
            return
        with self._directory(parent_path) as parent:
            if member.kind is Kind.DIRECTORY:
                self._make_directory(parent, name)
                self._directories.append((f"{parent_path}/{name}", member))
                return
            self._clear(parent, name)
            match member.kind:
                case Kind.FILE:
                    _write(parent, name, archive)
                case Kind.SYMLINK:
                    os.symlink(member.target, name, dir_fd=parent)
                case Kind.HARD_LINK:
                    self._link(member, parent, name)
                    return
                case Kind.FIFO:
                    os.mkfifo(name, 0o600, dir_fd=parent)
                case _:
                    raise BadRequest(f"unpack {member.name}", "devices cannot be made")
            _set_attributes(parent, name, member)

    @contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        fd = make_directories(self._root, path)
        try:
            yield fd
        finally:
            os.close(fd)

    def _make_directory(self, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            # A link to a directory stays: below it is where its programs look too.
            if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
                return
            if self._strict:
                raise BadRequest("cannot overwrite non-directory with directory", name) from None
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)

    def _clear(self, parent: int, name: str) -> None:
        """Make room for something that is no directory; a directory is never replaced."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise BadRequest("cannot overwrite directory with non-directory", name) from None

    def _link(self, member: Member, parent: int, name: str) -> None:
        *above, target = _components(member.target) or [""]
        with self._directory("/".join((self._target, *above))) as directory:
            os.link(target, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)


def _components(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadRequest(f"unpack {name[:200]!r}", "a name with .. leads out of the archive")
    return parts


def _write(parent: int, name: str, archive: TarReader) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
    with open(fd, "wb", buffering=0) as file:
        for piece in archive.data():
            while piece:
                piece = piece[file.write(piece) :]


def _set_attributes(parent: int, name: str, member: Member) -> None:
    try:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno != _NOT_MAPPED:
            raise
    times = member.mtime, member.mtime
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
    _chmod(parent, name, member.mode)


def _chmod(parent: int, name: str, mode: int) -> None:
    """chmod(2) of the thing itself, never of a link's target: that has no form of the call."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"unpack {name[:200]!r}"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise Forbidden(what, error.strerror or "read-only") from error
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise BadRequest(what, str(error.strerror)) from error
        raise SandboxError.from_os(what, error) from error
