"""Layers on top of the image `host`: what a build from `FROM host` has made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sandboxd.errors import Conflict
from sandboxd.launcher.spec import HostRoot


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
