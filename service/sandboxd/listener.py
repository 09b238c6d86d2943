"""The socket that clients come to: systemd's, or one of our own that only we can reach."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandboxd import paths
from sandboxd.errors import BadRequest, Conflict, SandboxError

_LISTEN_FDS_START: Final = 3
"""The first descriptor of socket activation: sd_listen_fds(3)."""
_BACKLOG: Final = 1024


@contextlib.contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """The inherited socket of systemd's activation, or a fresh one at `path`, mode 0600.

    Raises BadRequest for a path that is too long or names something else than a socket, Conflict
    when another service answers there, Forbidden for a directory that others may enter, NoSpace.
    """
    if len(os.fsencode(path)) > paths.SUN_PATH_MAX:
        why = f"a unix socket's path ends at {paths.SUN_PATH_MAX} bytes"
        raise BadRequest(f"{path}", why, "set SANDBOX_HOST to a shorter path")
    paths.private_directory(path.parent)
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        yield socket.socket(fileno=_LISTEN_FDS_START)
        return
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        made = _bind(listener, path)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_ino == made.st_ino:
                    path.unlink()


def _bind(listener: socket.socket, path: Path) -> os.stat_result:
    # The mode of a socket's file is 0777 less the umask: unix(7). There is no moment in between.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise SandboxError.from_os(f"listen on {path}", error) from None
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return os.lstat(path)


def _remove_stale(path: Path) -> None:
    """Unlink the socket of a service that is gone; anything else there stays."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BadRequest(
            f"{path}", "something else than a socket is there", f"mv {path} {path}.old"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise Conflict(f"{path}", "another service answers there", "sandboxctl service stop")
