"""Layers on top of the image `host`: what a build from `FROM host` has made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from sandboxd.errors import Conflict
from sandboxd.launcher.spec import HostRoot

_PLACES: Final = ("etc", "opt", "srv", "usr", "var", "var/cache", "var/lib", "var/log", "var/spool")
_LOCAL: Final = "usr/local"
_LOCAL_MAX: Final = 500
"""Directories below /usr/local that are repeated at most."""


def repeat_places(root: HostRoot, places: Path) -> None:
    """Repeat below `places`, an empty directory, where one usually installs things: /usr/local with
    what is in it, /opt, /srv, /etc and parts of /var; empty, and of the container's root.

    As a layer right above the machine's own root this lets a build step of an ordinary user write
    there: a user namespace has no power over directories whose owner it does not map. Reading what
    lies below still takes the user's own rights (overlayfs documentation, "Permission model").
    """
    overlaid = dict(root.overlays)
    for path in (*_PLACES, *_below_local()):
        parts = path.split("/")
        if parts[0] not in overlaid or not os.path.isdir(places / os.path.dirname(path)):
            continue
        try:
            status = os.lstat(f"/{path}")
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            place = places / path
            place.mkdir(exist_ok=True)
            place.chmod(stat.S_IMODE(status.st_mode))


def _below_local() -> Iterator[str]:
    """/usr/local and its directories, those above first."""
    for directory, names, _ in islice(os.walk(f"/{_LOCAL}"), _LOCAL_MAX):
        names.sort()
        yield directory.lstrip("/")


def stacked(root: HostRoot, layers: Sequence[Path]) -> HostRoot:
    """`root` with the top-level directories of `layers`, topmost first, over its own.

    Raises Conflict for a directory that this machine shows in a way that nothing can lie on: the
    machine's root may have changed since the layer was made.
    """
    above: dict[str, list[str]] = {}
    for layer in layers:
        with os.scandir(layer) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    above.setdefault(entry.name, []).append(entry.path)
    overlays = dict(root.overlays)
    for name, lowers in sorted(above.items()):
        if name in root.binds or name in dict(root.links):
            why = "there are mounts below it on this machine, or it is a link, so it is read-only"
            raise Conflict(f"/{name} of an image that was built on host", why)
        overlays[name] = ":".join([*lowers, *([overlays[name]] if name in overlays else [])])
    empty = tuple(name for name in root.empty if name not in above)
    return root._replace(overlays=tuple(overlays.items()), empty=empty)
