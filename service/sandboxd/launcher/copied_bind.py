"""A host directory, copy-on-write: what the container writes there never reaches the host."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from sandboxd.launcher.spec import Mount
from sandboxd.launcher.stage import PathRefused, Stage, attach, ensure_directory_path
from sandboxd.linux import mount


class AttachCopied(NamedTuple):
    """An overlay over the directory that the service opened.

    Its upper directory lies beside that of the container's root: `upper`, or the slot's own tmpfs.
    """

    request: Mount
    upper: str | None

    def execute(self, stage: Stage) -> None:
        source, target = self.request.source_fd, self.request.target
        assert source is not None, "the service opened it"
        if self.request.is_file:
            raise PathRefused(f"copy-on-write bind on {target}: its source is not a directory")
        place = _place(stage, self.upper, target)
        lower = f"{stage.path}/below"
        ensure_directory_path(lower, 0o755)
        # An overlay takes no detached mount for its lower directory before Linux 6.15, and keeps
        # a clone of an attached one.
        mount.move_mount(source, lower)
        try:
            _resemble(f"{place}/u", lower)
            fd = mount.overlay(
                (lower,), f"{place}/u", f"{place}/w", volatile=self.upper is not None,
                attributes=mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID,
            )  # fmt: skip
        finally:
            mount.umount(lower)
        try:
            attach(fd, stage.root, target, is_file=False)
        finally:
            os.close(fd)

    def describe(self) -> str:
        return f"bind on {self.request.target}: copy-on-write"


def _place(stage: Stage, upper: str | None, target: str) -> str:
    """The directory of this mount's upper and work directories."""
    base = f"{upper or stage.path}/binds"
    place = f"{base}/{hashlib.sha256(os.fsencode(target)).hexdigest()[:16]}"
    for path in (base, place, f"{place}/u", f"{place}/w"):
        ensure_directory_path(path, 0o755)
    return place


def _resemble(upper: str, lower: str) -> None:
    """The merged root has the upper's owner and mode; an owner that has no id here is ours."""
    found = os.stat(lower)
    try:
        os.chown(upper, found.st_uid, found.st_gid)
    except OSError:
        pass
    os.chmod(upper, stat.S_IMODE(found.st_mode))
