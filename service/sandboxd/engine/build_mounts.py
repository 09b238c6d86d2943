"""The mounts of a build step, opened for the launcher: parts of trees, caches, files in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxd.errors import SandboxError
from sandboxd.launcher.spec import Mount
from sandboxd.linux import mount
from sandboxd.linux.openat2 import open_beneath

if TYPE_CHECKING:
    from sandboxd.images.build.steps import FileMount, StepMount, TreeMount

_INERT: Final = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV


@contextmanager
def opened(requests: Sequence[StepMount], staged: Path) -> Iterator[tuple[Mount, ...]]:
    """The launcher's mounts; descriptors and mounts of ours go at the end of the block, when the
    launcher has its own. `staged` is a private directory. Raises SandboxError."""
    with ExitStack() as held:
        try:
            yield tuple(_opened(request, held, staged) for request in requests)
        except OSError as error:
            raise SandboxError.from_os("mount for a build step", error) from error


def _opened(request: StepMount, held: ExitStack, staged: Path) -> Mount:
    from sandboxd.images.build.steps import DirectoryMount, FileMount, MemoryMount

    if isinstance(request, MemoryMount):
        size = f",size={request.size}" if request.size else ""
        return Mount(request.target, None, tmpfs_options=f"mode=755,exec{size}")
    if isinstance(request, DirectoryMount):
        fd = _kept(held, mount.open_tree(str(request.path), recursive=False))
        return Mount(request.target, fd, request.readonly)
    if isinstance(request, FileMount):
        return Mount(request.target, _file(request, held, staged), readonly=True, is_file=True)
    return _tree(request, held, staged)


def _tree(request: TreeMount, held: ExitStack, staged: Path) -> Mount:
    """A part of one directory, or of layers; where it may be written to, of an overlay that takes
    the writes and is thrown away with `staged`."""
    base = _fresh(staged)
    lowers = tuple(str(path) for path in request.lowers)
    if not request.readonly or len(lowers) > 1:
        upper, work = (_fresh(staged), _fresh(staged)) if not request.readonly else (None, None)
        _attach(
            mount.overlay(lowers, upper, work, volatile=upper is not None, attributes=_INERT),
            base,
            held,
        )
    else:
        base = lowers[0]
    root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, root)
    place = open_beneath(root, "/".join(request.parts) or ".", os.O_PATH | os.O_NOFOLLOW)
    held.callback(os.close, place)
    fd = _kept(held, mount.open_tree("", dirfd=place, recursive=False))
    return Mount(request.target, fd, request.readonly, is_file=request.is_file)


def _file(request: FileMount, held: ExitStack, staged: Path) -> int:
    """A file on a tmpfs of its own: neither the store nor a swapless disk ever has the content."""
    base = _fresh(staged)
    _attach(mount.new_filesystem("tmpfs", (("mode", "700"),), (), _INERT), base, held)
    path = f"{base}/file"
    with open(path, "xb") as file:
        file.write(request.content)
    try:
        os.chown(path, request.uid, request.gid)
    except OSError:
        # An id outside the map: the command's own user is the one that can read it then.
        pass
    os.chmod(path, request.mode)
    return _kept(held, mount.open_tree(path, recursive=False))


def _attach(tree: int, place: str, held: ExitStack) -> None:
    """Attach a detached mount in this process's namespace until the end of the block.

    Parts of a mount that is attached nowhere cannot be cloned before Linux 6.15: open_tree(2).
    """
    try:
        mount.move_mount(tree, place)
    finally:
        os.close(tree)
    held.callback(mount.umount, place)


def _fresh(staged: Path) -> str:
    return tempfile.mkdtemp(prefix="mount-", dir=staged)


def _kept(held: ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd
