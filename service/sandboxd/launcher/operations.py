"""The typed operations that build a root file system, one small object each.

Each can `describe` itself in one line without a kernel, and `execute` itself inside a warm slot.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from sandboxd.launcher.spec import Mount
from sandboxd.launcher.stage import VOLATILE, Stage, attach, ensure_directory
from sandboxd.linux import mount

_OPTIONS_MAX: Final = 3800
"""mount(2) takes one page of options; longer lists of layers go through fsconfig(2)."""
_TMPFS_STRINGS: Final = frozenset({"size", "mode", "nr_inodes", "nr_blocks", "uid", "gid"})


class StackLayers(NamedTuple):
    """The image's layers under a fresh upper directory, as the new root."""

    lowers: tuple[str, ...]
    upper: str | None

    def execute(self, stage: Stage) -> None:
        upper, work = stage.writable(self.upper)
        lowers = ":".join(self.lowers)
        options = f"lowerdir={lowers},upperdir={upper},workdir={work},userxattr"
        options += VOLATILE if self.upper else ""
        if len(os.fsencode(options)) < _OPTIONS_MAX and "\\" not in lowers:
            mount.mount("overlay", stage.root_path, "overlay", 0, options)
            return
        fd = mount.overlay(self.lowers, upper, work, volatile=bool(self.upper))
        mount.move_mount(fd, stage.root_path)
        os.close(fd)

    def describe(self) -> str:
        return f"overlay on /: {len(self.lowers)} layers, upper {self.upper or 'in memory'}"


class AttachPart(NamedTuple):
    """A kernel file system that the slot mounted ahead: proc, sys or dev."""

    name: str

    def execute(self, stage: Stage) -> None:
        ensure_directory(stage.root, self.name, 0o755)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(self.name, flags, dir_fd=stage.root)
        try:
            mount.move_mount(stage.parts[self.name], dirfd=target)
        finally:
            os.close(target)

    def describe(self) -> str:
        return f"{self.name} on /{self.name}: own instance"


class ShareMemorySize(NamedTuple):
    """The size of /dev/shm, when it is not the default."""

    size: int

    def execute(self, stage: Stage) -> None:
        flags = mount.MS_REMOUNT | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
        mount.mount("shm", f"{stage.path}/dev/shm", "tmpfs", flags, f"mode=1777,size={self.size}")

    def describe(self) -> str:
        return f"tmpfs on /dev/shm: {self.size} bytes"


class ServiceFile(NamedTuple):
    """A small file that the service writes for the container: hosts, hostname, resolv.conf."""

    path: str
    content: str

    def execute(self, stage: Stage) -> None:
        source = f"{stage.path}/files/{os.path.basename(self.path)}"
        _write(source, self.content)
        tree = mount.open_tree(source, recursive=False)
        try:
            attach(tree, stage.root, self.path, is_file=True)
        finally:
            os.close(tree)

    def describe(self) -> str:
        return f"file on {self.path}: {len(self.content)} bytes from the service"


class SeedServiceFiles(NamedTuple):
    """The same small files, written into the slot's own upper directory before it is mounted.

    A third of the cost of binding them, and right only for an upper that nobody will ever look at
    on its own. Where the image's /etc is no plain directory they are bound instead.
    """

    lowers: tuple[str, ...]
    files: tuple[ServiceFile, ...]

    def execute(self, stage: Stage) -> None:
        if not all(_is_plain_directory(f"{lower}/etc") for lower in self.lowers):
            stage.late.extend(self.files)
            return
        upper, _ = stage.writable(None)
        for file in self.files:
            _write(f"{upper}{file.path}", file.content)

    def withdraw(self, stage: Stage) -> None:
        """Take the files away again, after a rehearsal."""
        upper, _ = stage.writable(None)
        for file in self.files:
            os.unlink(f"{upper}{file.path}")

    def describe(self) -> str:
        return f"files of the service: {', '.join(file.path for file in self.files)}"


class LateServiceFiles(NamedTuple):
    """Bind what could not be seeded."""

    def execute(self, stage: Stage) -> None:
        for file in stage.late:
            file.execute(stage)

    def describe(self) -> str:
        return "files of the service that could not be seeded"


class AttachMount(NamedTuple):
    """A volume or bind mount that the service opened, or a fresh tmpfs."""

    request: Mount

    def execute(self, stage: Stage) -> None:
        request = self.request
        if request.source_fd is None:
            self._attach_tmpfs(stage)
            return
        attach(request.source_fd, stage.root, request.target, is_file=request.is_file)
        if request.readonly:
            mount.mount_setattr(
                "", mount.MOUNT_ATTR_RDONLY, dirfd=request.source_fd, recursive=True
            )

    def _attach_tmpfs(self, stage: Stage) -> None:
        pairs = [
            option.partition("=") for option in self.request.tmpfs_options.split(",") if option
        ]
        strings = tuple((key, value) for key, _, value in pairs if key in _TMPFS_STRINGS)
        attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        attributes |= mount.MOUNT_ATTR_RDONLY if self.request.readonly else 0
        flags = {key for key, equals, _ in pairs if not equals}
        attributes |= mount.MOUNT_ATTR_NOEXEC if "exec" not in flags else 0
        tree = mount.new_filesystem("tmpfs", strings, (), attributes)
        try:
            attach(tree, stage.root, self.request.target, is_file=False)
        finally:
            os.close(tree)

    def describe(self) -> str:
        kind = "tmpfs" if self.request.source_fd is None else "volume or bind"
        mode = "read-only" if self.request.readonly else "read-write"
        return f"{kind} on {self.request.target}: {mode} {self.request.tmpfs_options}".rstrip()


class SealRoot(NamedTuple):
    """--read-only: no write to the root itself; volumes keep their own mode."""

    def execute(self, stage: Stage) -> None:
        mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=stage.root)

    def describe(self) -> str:
        return "remount / read-only"


class EnterRoot(NamedTuple):
    """The new root becomes `/`.

    Where the slot left the host's tree ahead of time, the new root only moves on top of the slot's
    tmpfs: `..` from it stops there, and so does setns(2). Otherwise the old root is detached here,
    which waits for all processors: 0.2 to 3 ms.
    """

    def execute(self, stage: Stage) -> None:
        os.fchdir(stage.root)
        if stage.left_host:
            mount.mount(stage.root_path, "/", "", mount.MS_MOVE)
            os.chroot(".")
        else:
            mount.pivot_root(".", ".")
            mount.umount(".")
        os.chdir("/")

    def describe(self) -> str:
        return "the new root becomes /"


def _is_plain_directory(path: str) -> bool:
    """Absent, or a directory of the usual mode: an upper directory over it changes nothing."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    return found.st_mode == stat.S_IFDIR | 0o755 and found.st_uid == found.st_gid == 0


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content.encode())
    finally:
        os.close(fd)
