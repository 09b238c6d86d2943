"""The operations that build the image `host`: the machine's own root, copy-on-write."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from sandboxd.launcher.spec import HostRoot
from sandboxd.launcher.stage import VOLATILE, Stage, attach, ensure_directory, ensure_directory_path
from sandboxd.linux import mount
from sandboxd.linux.openat2 import open_beneath


class HostSkeleton(NamedTuple):
    """A new root for the image `host`: its links and empty directories, no content yet."""

    host: HostRoot
    upper: str | None

    def execute(self, stage: Stage) -> None:
        if self.upper is not None:
            skeleton = f"{self.upper}/root"
            os.makedirs(skeleton, 0o755, exist_ok=True)
            mount.mount(skeleton, stage.root_path, "", mount.MS_BIND)
        for name in self.host.empty:
            sticky = name in ("tmp",)
            ensure_directory(stage.root, name, 0o1777 if sticky else 0o755)
        for name, target in self.host.links:
            try:
                os.symlink(target, name, dir_fd=stage.root)
            except FileExistsError:
                pass

    def describe(self) -> str:
        return f"skeleton on /: links {self.host.links}, empty {self.host.empty}"


class HostOverlay(NamedTuple):
    """One top-level directory of the machine, copy-on-write."""

    name: str
    lower: str
    upper: str | None

    def execute(self, stage: Stage) -> None:
        upper, work = stage.writable(self.upper)
        mode = stat.S_IMODE(os.stat(self.lower.partition(":")[0]).st_mode)
        ensure_directory_path(f"{upper}/{self.name}", mode)
        ensure_directory_path(f"{work}/{self.name}", 0o700)
        ensure_directory(stage.root, self.name, mode)
        target = f"{stage.root_path}/{self.name}"
        places = f"upperdir={upper}/{self.name},workdir={work}/{self.name}"
        options = f"lowerdir={self.lower},{places},userxattr{VOLATILE if self.upper else ''}"
        mount.mount("overlay", target, "overlay", 0, options)

    def describe(self) -> str:
        return f"overlay on /{self.name}: {self.lower}"


class HostBind(NamedTuple):
    """A path of the machine at the same place, with all that is mounted below it, read-only."""

    path: str

    def execute(self, stage: Stage) -> None:
        tree = mount.open_tree(self.path)
        try:
            mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree, recursive=True)
            is_file = not stat.S_ISDIR(os.fstat(tree).st_mode)
            attach(tree, stage.root, self.path, is_file=is_file)
        finally:
            os.close(tree)

    def describe(self) -> str:
        return f"bind on {self.path}: read-only, recursive"


class Hide(NamedTuple):
    """An empty file or directory over a path, where there is one."""

    path: str

    def execute(self, stage: Stage) -> None:
        try:
            target = open_beneath(stage.root, self.path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            cover = _cover(os.fstat(target).st_mode)
            mount.move_mount(cover, dirfd=target)
            os.close(cover)
        finally:
            os.close(target)

    def describe(self) -> str:
        return f"empty on {self.path}"


def _cover(mode: int) -> int:
    """A detached mount: an empty directory of the same mode, writable, or an empty file.

    A directory such as /var/tmp stays of use, and what is shown below it finds a place.
    """
    if stat.S_ISDIR(mode):
        attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        strings = (("mode", f"{stat.S_IMODE(mode):o}"),)
        return mount.new_filesystem("tmpfs", strings, (), attributes)
    cover = mount.open_tree("/dev/null", recursive=False)
    mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=cover)
    return cover
