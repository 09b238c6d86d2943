"""A root file system as a list of typed operations: planned without a kernel, printable, then run.

`plan` turns a specification into operations; each can `describe` itself in one line and `execute`
itself inside a warm slot. Mount points lie in an image that nobody vouches for, so each is found by
descriptor from the new root, never by a path that the kernel resolves across a symbolic link to the
outside (CVE-2021-30465, CVE-2025-52881).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from sandboxd.launcher.spec import DEFAULT_SHM_SIZE, ContainerSpec, HostRoot, Mount, Rootfs
from sandboxd.linux import mount
from sandboxd.linux.openat2 import make_directories, make_file, open_beneath

_OPTIONS_MAX: Final = 3800
"""mount(2) takes one page of options; longer lists of layers go through fsconfig(2)."""
_EMPTY: Final = "empty"
_PARTS: Final = "/.sandbox"


class PathRefused(ValueError):
    """A mount's target that leads out of the container or cannot be a mount point."""


class Stage:
    """The slot's own tmpfs: what was mounted ahead, and the place where the root is built."""

    def __init__(self, base: str, root_path: str | None = None) -> None:
        self.base = base
        self._root_path = root_path
        self.parts: dict[str, int] = {}
        self.left_host = False
        self.late: list[ServiceFile] = []
        self._root = -1

    @property
    def path(self) -> str:
        """The directory of all parts: below `base`, or at the root once the host was left."""
        return _PARTS if self.left_host else f"{self.base}{_PARTS}"

    @property
    def root_path(self) -> str:
        return self._root_path or f"{self.path}/root"

    def leave_host(self) -> None:
        """Ahead of time: this tmpfs becomes the root, and the host's tree is gone."""
        os.chdir(self.base)
        mount.pivot_root(".", f".{_PARTS}/old")
        mount.umount(f"{_PARTS}/old")
        self.left_host = True

    @property
    def root(self) -> int:
        """A descriptor of the new root; open it only after the root itself is mounted."""
        if self._root < 0:
            self._root = os.open(self.root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._root

    def writable(self, upper: str | None) -> tuple[str, str]:
        """The upper and work directories: on disk below `upper`, or on this tmpfs."""
        base = self.path if upper is None else upper
        for name in ("u", "w"):
            try:
                os.mkdir(f"{base}/{name}", 0o755)
            except FileExistsError:
                pass
        return f"{base}/u", f"{base}/w"


class Operation(Protocol):
    """One step of the assembly."""

    def execute(self, stage: Stage) -> None: ...

    def describe(self) -> str: ...


class StackLayers(NamedTuple):
    """The image's layers under a fresh upper directory, as the new root."""

    lowers: tuple[str, ...]
    upper: str | None

    def execute(self, stage: Stage) -> None:
        upper, work = stage.writable(self.upper)
        lowers = ":".join(self.lowers)
        options = f"lowerdir={lowers},upperdir={upper},workdir={work},userxattr"
        if len(os.fsencode(options)) < _OPTIONS_MAX and "\\" not in lowers:
            mount.mount("overlay", stage.root_path, "overlay", 0, options)
            return
        fd = mount.overlay(self.lowers, upper, work)
        mount.move_mount(fd, stage.root_path)
        os.close(fd)

    def describe(self) -> str:
        return f"overlay on /: {len(self.lowers)} layers, upper {self.upper or 'in memory'}"


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
            _ensure_directory(stage.root, name, 0o1777 if sticky else 0o755)
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
        mode = stat.S_IMODE(os.stat(f"/{self.name}").st_mode)
        _ensure_directory_path(f"{upper}/{self.name}", mode)
        _ensure_directory_path(f"{work}/{self.name}", 0o700)
        _ensure_directory(stage.root, self.name, mode)
        target = f"{stage.root_path}/{self.name}"
        places = f"upperdir={upper}/{self.name},workdir={work}/{self.name}"
        mount.mount("overlay", target, "overlay", 0, f"lowerdir={self.lower},{places},userxattr")

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
            is_directory = stat.S_ISDIR(os.fstat(target).st_mode)
            source = f"{stage.path}/{_EMPTY}" if is_directory else "/dev/null"
            cover = mount.open_tree(source, recursive=False)
            mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=cover)
            mount.move_mount(cover, dirfd=target)
            os.close(cover)
        finally:
            os.close(target)

    def describe(self) -> str:
        return f"empty on {self.path}"


class AttachPart(NamedTuple):
    """A kernel file system that the slot mounted ahead: proc, sys or dev."""

    name: str

    def execute(self, stage: Stage) -> None:
        _ensure_directory(stage.root, self.name, 0o755)
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


_TMPFS_STRINGS: Final = frozenset({"size", "mode", "nr_inodes", "nr_blocks", "uid", "gid"})


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


def plan(spec: ContainerSpec) -> list[Operation]:
    """The operations for `spec`, in the order in which they run in a slot for any image."""
    rootfs, files = spec.rootfs, _service_files(spec)
    if rootfs.host is not None or rootfs.upper is not None:
        return [*_root(rootfs), *_inside(spec, files)]
    seeded = SeedServiceFiles(rootfs.lowers, tuple(files))
    return [seeded, *_root(rootfs), *_inside(spec, [LateServiceFiles()])]


def plan_on_host(spec: ContainerSpec) -> list[Operation]:
    """The operations that are left in a slot that has assembled the image `host` ahead."""
    return _inside(spec, _service_files(spec))


def plan_host(host: HostRoot, upper: str | None) -> list[Operation]:
    """The root of the image `host` alone."""
    operations: list[Operation] = [HostSkeleton(host, upper)]
    operations += [HostOverlay(name, lower, upper) for name, lower in host.overlays]
    operations += [HostBind(f"/{name}") for name in host.binds]
    operations += [HostBind(path) for path in host.show]
    operations += [Hide(path) for path in host.hide]
    return operations


def _inside(spec: ContainerSpec, files: Sequence[Operation]) -> list[Operation]:
    operations: list[Operation] = []
    if spec.shm_size != DEFAULT_SHM_SIZE:
        operations.append(ShareMemorySize(spec.shm_size))
    operations += [AttachPart(name) for name in ("proc", "sys", "dev")]
    operations += files
    operations += [AttachMount(each) for each in sorted(spec.mounts, key=_depth)]
    if spec.rootfs.readonly:
        operations.append(SealRoot())
    operations.append(EnterRoot())
    return operations


def _root(rootfs: Rootfs) -> list[Operation]:
    if rootfs.host is not None:
        return plan_host(rootfs.host, rootfs.upper)
    return [StackLayers(rootfs.lowers, rootfs.upper)]


def _service_files(spec: ContainerSpec) -> list[ServiceFile]:
    taken = {each.target.rstrip("/") for each in spec.mounts}
    files = (
        ("/etc/hosts", spec.hosts),
        ("/etc/hostname", f"{spec.hostname}\n"),
        ("/etc/resolv.conf", spec.resolv_conf),
    )
    return [ServiceFile(path, text) for path, text in files if text and path not in taken]


def _depth(request: Mount) -> int:
    return request.target.rstrip("/").count("/")


def attach(tree: int, root: int, target: str, *, is_file: bool) -> None:
    """Attach a detached mount inside the tree at `root`, making the mount point when it is missing.

    Raises PathRefused for a target that is relative, is the root, or climbs.
    """
    parts = target.split("/")
    if not target.startswith("/") or ".." in parts or not target.strip("/"):
        raise PathRefused(f"mount target {target!r}: an absolute path below / without .. is needed")
    relative = target.strip("/")
    point = make_file(root, relative) if is_file else make_directories(root, relative, 0o755)
    try:
        mount.move_mount(tree, dirfd=point)
    finally:
        os.close(point)


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


def _ensure_directory(parent: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass


def _ensure_directory_path(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)
