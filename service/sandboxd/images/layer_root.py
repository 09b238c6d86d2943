"""Directories of a layer that is being unpacked, reached by descriptor and never by a long path.

Each step opens one component without following a link; where a component is a symbolic link of the
same layer, its target is walked in the same way, with the layer's root as `/`. Nothing outside the
root can be reached, whatever is swapped meanwhile: a pinned descriptor stays what it was.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest
from sandboxd.store.trees import is_whiteout

Path = tuple[str, ...]

_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHE_MAX: Final = 400
_DEPTH_MAX: Final = 200
_LINKS_MAX: Final = 40
"""Links on one way, all in all, as in path_resolution(7): a limit for each level of nesting alone
would let a few hundred links that name each other be followed for years."""
_IMPLIED_MAX: Final = 500_000
_RESERVED: Final = ".wh."
_NO_LEAVES: Final = ("", ".", "..")


def components(name: str) -> Path:
    """The components of a member's name; the root has none. Raises BadRequest for `..`."""
    parts = tuple([part for part in name.split("/") if part and part != "."])
    if ".." in parts:
        raise BadRequest(
            f"archive member {name[:200]!r}", "a name with .. leads out of the archive"
        )
    if len(parts) > _DEPTH_MAX:
        raise BadRequest(f"archive member {name[:80]!r}…", f"deeper than {_DEPTH_MAX} directories")
    return parts


class Place(NamedTuple):
    """Where a member goes: a descriptor of its directory, that directory's path with links
    resolved, ended by `/` unless it is the root, and the last component."""

    parent: int
    prefix: bytes
    name: str


class LayerRoot:
    """Descriptors of directories below `root`, the most recent 400 of them kept open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[Path, tuple[int, Path]] = {}
        self._last: tuple[str, int, bytes] | None = None
        """The directory, as it was written, of the last `place`, where the next is as a rule."""
        self._links = 0
        self.implied: set[Path] = set()
        """Directories that were made only because something lies in them."""

    def directory(self, path: Path) -> tuple[int, Path]:
        """A descriptor for `path`, made where missing, and the path with its links resolved.

        The descriptor belongs to the cache: use it before the next call. Raises BadRequest where
        something else than a directory is in the way.
        """
        self._links = 0
        return self._walked(path)

    def place(self, name: str) -> Place | None:
        """Where the member `name` belongs; None for the root itself.

        The descriptor lasts as that of `directory` does, and errors are the same.
        """
        above, _, leaf = name.rpartition("/")
        if self._last is not None and self._last[0] == above and leaf not in _NO_LEAVES:
            return Place(self._last[1], self._last[2], leaf)
        path = components(name)
        if not path:
            return None
        fd, real = self.directory(path[:-1])
        prefix = os.fsencode("/".join((*real, "")))
        if path[-1] == leaf:
            self._last = (above, fd, prefix)
        return Place(fd, prefix, path[-1])

    def forget(self) -> None:
        """Close all descriptors: a directory or a link that they came through was replaced."""
        self._last = None
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def _walked(self, path: Path) -> tuple[int, Path]:
        known = len(path)
        while known and path[:known] not in self._open:
            known -= 1
        fd, real = self._open[path[:known]] if known else (self._root, ())
        for depth in range(known, len(path)):
            fd, real = self._step(fd, real, path[depth])
            self._remember(path[: depth + 1], fd, real)
        return fd, real

    def _step(self, fd: int, real: Path, name: str) -> tuple[int, Path]:
        try:
            return os.open(name, _FLAGS, dir_fd=fd), (*real, name)
        except FileNotFoundError:
            return self._made(fd, real, name)
        except NotADirectoryError:
            return self._followed(fd, real, name)

    def _made(self, fd: int, real: Path, name: str) -> tuple[int, Path]:
        if len(real) >= _DEPTH_MAX:
            raise BadRequest(f"archive: {'/'.join(real)[:80]!r}…", "nested too deep")
        if name.startswith(_RESERVED):
            raise BadRequest(f"archive: {name[:80]!r}", "a directory with the name of a whiteout")
        if len(self.implied) >= _IMPLIED_MAX:
            why = f"more than {_IMPLIED_MAX} directories that it does not name"
            raise BadRequest("archive", why)
        os.mkdir(name, 0o700, dir_fd=fd)
        self.implied.add((*real, name))
        return os.open(name, _FLAGS, dir_fd=fd), (*real, name)

    def _followed(self, fd: int, real: Path, name: str) -> tuple[int, Path]:
        shown = "/".join((*real, name))
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if is_whiteout(status):
            os.unlink(name, dir_fd=fd)
            return self._made(fd, real, name)
        if not stat.S_ISLNK(status.st_mode):
            raise BadRequest(f"archive: {shown[:200]!r}", "a file where a directory is needed")
        target = os.readlink(name, dir_fd=fd)
        self._links += 1
        if self._links > _LINKS_MAX:
            raise BadRequest(f"archive: {shown[:200]!r}", "too many symbolic links")
        at: Path = () if target.startswith("/") else real
        for part in target.split("/"):
            if part == "..":
                at = at[:-1]
            elif part not in ("", "."):
                at = self._walked((*at, part))[1]
        found, _ = self._walked(at)
        return os.dup(found), at

    def _remember(self, path: Path, fd: int, real: Path) -> None:
        if len(self._open) >= _CACHE_MAX:
            self._last = None
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest)[0])
        self._open[path] = (fd, real)
