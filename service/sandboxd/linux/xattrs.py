"""The extended attributes in which overlayfs keeps its marks: xattr(7), `userxattr` (Linux 5.11).

A layer from outside must not bring such marks of its own: they would hide or redirect what lies
below. A path or a descriptor is taken wherever Python's own calls take one.
"""

from __future__ import annotations

import errno
import os
from typing import Final

OPAQUE: Final = "user.overlay.opaque"
"""On a directory: nothing of the layers below shows in it."""

ORIGIN: Final = "user.overlay.origin"
"""On what was copied up: which file of a lower layer it came from."""

_OVERLAYS_OWN: Final = ("user.overlay.", "trusted.overlay.")
_PROBE: Final = "user.sandboxd.probe"


def is_opaque(directory: str | int) -> bool:
    """getxattr(2): whether `directory` hides what lower layers have. Raises OSError."""
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def is_overlays_own(name: str) -> bool:
    """Whether an attribute is a mark of overlayfs, never part of a file's content."""
    return name.startswith(_OVERLAYS_OWN)


def supported(directory: str) -> bool:
    """Whether files in `directory` can have user attributes: tmpfs since Linux 6.6, never on NFS.

    `directory` must be writable; it is left as it was. Raises OSError for any other reason.
    """
    try:
        os.setxattr(directory, _PROBE, b"y")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    os.removexattr(directory, _PROBE)
    return True
