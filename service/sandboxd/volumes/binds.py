"""Bind mounts: a path of the host as a detached mount."""

from __future__ import annotations

import os
import stat

from sandboxd.errors import BadRequest, Forbidden, SandboxError
from sandboxd.linux import mount


def bind(source: str, *, readonly: bool, create: bool) -> tuple[int, bool]:
    """A detached mount of `source` with all that is mounted below it, and whether it is a file.

    The path is resolved as the user, symbolic links included. With `create`, a directory is made
    where nothing is. Raises BadRequest in Docker's words for a path that is relative or missing.
    """
    if not source.startswith("/") or "\0" in source:
        raise BadRequest(f"invalid bind source {source!r}", "an absolute path is needed")
    path = os.path.normpath(source)
    try:
        return _opened(path, readonly)
    except FileNotFoundError:
        if not create:
            raise BadRequest(f"bind source path does not exist: {path}") from None
    except OSError as error:
        raise _refused(path, error) from error
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        return _opened(path, readonly)
    except OSError as error:
        raise _refused(path, error) from error


def _opened(path: str, readonly: bool) -> tuple[int, bool]:
    fd = mount.open_tree(path, recursive=True)
    try:
        if readonly:
            mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=fd, recursive=True)
        return fd, not stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise


def _refused(path: str, error: OSError) -> SandboxError:
    if isinstance(error, PermissionError):
        return Forbidden(f"bind source {path}", str(error.strerror or error))
    if isinstance(error, NotADirectoryError | FileExistsError):
        return BadRequest(f"bind source path does not exist: {path}", str(error.strerror))
    return SandboxError.from_os(f"bind source {path}", error)
