"""Unpacks a layer's tar archive into a directory that overlay mounts can use as a lower directory.

Nothing an archive says can reach outside its root: parents are descriptors (see `layer_root`), the
last component is created with O_EXCL or O_NOFOLLOW, and links are leaves. Whiteouts become
character devices 0:0 and opaque directories `user.overlay.opaque` (overlayfs documentation,
"whiteouts and opaque directories"). The later of two members of one name wins, but a whiteout never
hides an entry of its own layer: a directory beside its own whiteout is an opaque one. What a user
namespace cannot have (devices, file capabilities, foreign attributes) is left out and recorded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from sandboxd.errors import BadRequest, HostLacks, SandboxError
from sandboxd.images import sparse
from sandboxd.images.applied import Applied
from sandboxd.images.layer_root import LayerRoot, Path, Place, components
from sandboxd.images.ownership import Ownership
from sandboxd.images.recipe import Recorder
from sandboxd.images.tar import Kind, Member, TarReader
from sandboxd.store import trees
from sandboxd.store.durable import begin_writing_back
from sandboxd.store.trees import OPAQUE, is_whiteout

_WHITEOUT: Final = ".wh."
_OPAQUE_MARK: Final = ".wh..wh..opq"
_RESERVED: Final = ".wh..wh."
_SET_ID: Final = 0o7000
ANY_UMASK: Final = 0o777
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DENIED: Final = (
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ, errno.EMLINK),
    errno.ENOENT,  # a symbolic link to the empty name: symlink(2)
)
_UNFIT: Final = (
    *(errno.ENOTSUP, errno.ERANGE, errno.E2BIG, errno.EPERM, errno.EINVAL),
    errno.ENOSPC,  # ext4: more than its one block for attributes holds, whatever is free elsewhere
)
_BIG: Final = 256 << 10
"""Bytes of a file that are better on their way to the disk before the layer is complete."""
_MODE_IMPLIED: Final = 0o755
_KEPT_MAX: Final = 256 << 20
_KEPT_EACH: Final = 600
"""Bytes that one directory, or one entry of the metadata, takes in memory besides its name."""


class Applier:
    """Applies one archive to the empty directory `root`; `attic` takes what is replaced.

    Both are descriptors, on one file system, in a place that nobody else can enter. `recorder` is
    told which of the archive's bytes became which file; what the reader keeps it gets elsewhere.
    """

    def __init__(
        self,
        root: int,
        attic: int,
        ownership: Ownership,
        recorder: Recorder | None = None,
        *,
        umask: int = ANY_UMASK,
    ) -> None:
        """`umask`: this process's, where it is known that no other thread changes it."""
        self._attic, self._recorder = attic, recorder
        self._changed_later = _SET_ID | (umask if _takes_modes(root) else ANY_UMASK)
        self._root = LayerRoot(root)
        self._ownership = ownership
        self._directories: dict[Path, Member] = {}
        self._opaque: set[Path] = set()
        self._devices: set[Path] = set()
        """Names that are devices, and so are not there: nor is a hard link to one."""
        self._hidden: set[Path] = set()
        self._replaced = self._kept = 0
        self._done = Applied()

    def apply(self, archive: TarReader) -> Applied:
        """Raises BadRequest for a hostile or malformed archive, NoSpace when the disk is full."""
        try:
            for member in archive:
                self._apply_guarded(member, archive)
            self._finish_directories()
            return self._done
        except OSError as error:
            raise SandboxError.from_os("unpack the layer", error) from error
        finally:
            self._root.forget()

    def _apply_guarded(self, member: Member, archive: TarReader) -> None:
        try:
            self._apply(member, archive)
        except OSError as error:
            what = f"unpack {member.name[:200]!r}"
            if error.errno in _DENIED:
                raise BadRequest(what, str(error.strerror)) from error
            raise SandboxError.from_os(what, error) from error

    def _apply(self, member: Member, archive: TarReader) -> None:
        self._done.entries += 1
        if member.kind is Kind.FILE and _WHITEOUT not in member.name and not self._devices:
            self._place_file(member, archive)
            return
        path = components(member.name)
        if member.kind is not Kind.HARD_LINK:
            self._devices.discard(path)
        if not path:
            if member.kind is Kind.DIRECTORY:
                self._directories[()] = member
            return
        if _WHITEOUT in member.name and any(part.startswith(_WHITEOUT) for part in path[:-1]):
            self._skip(path, "a directory with the name of a whiteout")
            return
        if path[-1].startswith(_WHITEOUT):
            self._white_out(path)
            return
        match member.kind:
            case Kind.DIRECTORY:
                self._place_directory(path, member)
            case Kind.FILE:
                self._place_file(member, archive)
            case Kind.SYMLINK:
                self._place(path, lambda fd, _: os.symlink(member.target, path[-1], dir_fd=fd))
                self._own_leaf(path, member)
            case Kind.FIFO:
                self._place(path, lambda fd, _: os.mkfifo(path[-1], 0o600, dir_fd=fd))
                self._own_leaf(path, member)
            case Kind.HARD_LINK:
                self._link(path, components(member.target))
            case Kind.OTHER:
                self._skip(path, "unknown kind")
            case _:
                self._skip_device(path)

    def _place_file(self, member: Member, archive: TarReader) -> None:
        place = self._root.place(member.name)
        if place is None:
            return
        try:
            fd = self._created(place, member)
        except FileExistsError:
            self._remove(components(member.name))
            place = self._root.place(member.name)
            assert place is not None
            fd = self._created(place, member)
        try:
            self._write(fd, place, member, archive)
        finally:
            os.close(fd)

    def _place(self, path: Path, make: Callable[[int, Path], None]) -> None:
        """Create the last component, in the place of whatever has that name already.

        `make` gets a descriptor of the parent, and its path with all links resolved.
        """
        try:
            make(*self._root.directory(path[:-1]))
        except FileExistsError:
            self._remove(path)
            make(*self._root.directory(path[:-1]))

    def _remove(self, path: Path) -> None:
        parent, real = self._root.directory(path[:-1])
        status = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
        gone = (*real, path[-1])
        if stat.S_ISDIR(status.st_mode):
            self._forget_directories(gone, self._set_aside(parent, path[-1]))
        elif stat.S_ISREG(status.st_mode) and status.st_size and self._recorder is not None:
            self._moved(gone, self._set_aside(parent, path[-1]))
        else:
            os.unlink(path[-1], dir_fd=parent)
        self._root.forget()

    def _set_aside(self, parent: int, name: str) -> str:
        self._replaced += 1
        aside = str(self._replaced)
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=self._attic)
        return aside

    def _moved(self, path: Path, aside: str) -> None:
        """The archive's bytes must still be found, in the attic now."""
        if self._recorder is not None:
            self._keep(sum(map(len, path)))
            self._recorder.moved(os.fsencode("/".join(path)), aside)

    def _forget_directories(self, gone: Path, aside: str) -> None:
        """Nothing is left to be set on a directory that was replaced, nor below it.

        What it held is read from where it lies now: each directory is replaced once, but looking
        through all that are known for each replacement would take a hostile archive hours.
        """
        self._forget_directory(gone)
        fd = os.open(aside, trees.DIRECTORY, dir_fd=self._attic)
        try:
            for entry in trees.walk(fd):
                path = (*gone, *entry.path.split("/"))
                self._hidden.discard(path)
                if entry.is_directory:
                    self._forget_directory(path)
                elif stat.S_ISREG(entry.status.st_mode):
                    self._moved(path, f"{aside}/{entry.path}")
        finally:
            os.close(fd)

    def _forget_directory(self, path: Path) -> None:
        self._directories.pop(path, None)
        self._opaque.discard(path)
        self._root.implied.discard(path)

    def _place_directory(self, path: Path, member: Member) -> None:
        parent, real = self._root.directory(path[:-1])
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._remove(path)
                return self._place_directory(path, member)
        self._root.implied.discard((*real, path[-1]))
        self._keep(len(member.name) + sum(map(len, member.xattrs.values())))
        self._directories[(*real, path[-1])] = member

    def _is_born_so(self, member: Member) -> bool:
        """Whether nothing but its time has to be set on a file that was created."""
        return not (member.uid or member.gid or member.xattrs or member.mode & self._changed_later)

    def _created(self, place: Place, member: Member) -> int:
        mode = member.mode if self._is_born_so(member) else 0o600
        return os.open(place.name, _CREATE, mode, dir_fd=place.parent)

    def _write(self, fd: int, place: Place, member: Member, archive: TarReader) -> None:
        if member.extents is not None:
            sparse.write(fd, member.extents, archive.data())
            os.ftruncate(fd, member.size)
        elif member.size and self._recorder is not None:
            self._recorder.file(place.prefix + os.fsencode(place.name), member.size)
        for piece in archive.data():
            written = os.write(fd, piece)
            while written < len(piece):
                written += os.write(fd, piece[written:])
        self._done.size += member.size
        if self._is_born_so(member):
            os.utime(fd, ns=(member.mtime, member.mtime))
        else:
            self._set_attributes(fd, components(member.name), member)
        if member.size >= _BIG:
            begin_writing_back(fd)

    def _set_attributes(self, place: int | str, path: Path, member: Member) -> None:
        """Owner, then mode (chown(2) clears set-id bits), attributes and time, in this order."""
        owner = self._owner(path, member)
        if owner != (0, 0):
            os.chown(place, *owner)
        os.chmod(place, self._ownership.mode(member.mode, member.uid, member.gid))
        for name, value in member.xattrs.items():
            self._set_xattr(place, path, name, value)
        os.utime(place, ns=(member.mtime, member.mtime))

    def _own_leaf(self, path: Path, member: Member) -> None:
        """Owner, time and, for a FIFO, mode of something that must not be opened or followed."""
        parent, _ = self._root.directory(path[:-1])
        for attribute in member.xattrs:
            self._skip(path, f"attribute {attribute}")
        owner = self._owner(path, member)
        if owner != (0, 0):
            os.chown(path[-1], *owner, dir_fd=parent, follow_symlinks=False)
        if member.kind is Kind.FIFO:
            fd = os.open(path[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{fd}", member.mode)
            finally:
                os.close(fd)
        times = (member.mtime, member.mtime)
        os.utime(path[-1], ns=times, dir_fd=parent, follow_symlinks=False)

    def _owner(self, path: Path, member: Member) -> tuple[int, int]:
        placed = self._ownership.placed(member.uid, member.gid)
        if placed != (member.uid, member.gid):
            self._keep(len(member.name))
            self._done.owners["/".join(path)] = [member.uid, member.gid]
        return placed

    def _set_xattr(self, place: int | str, path: Path, name: str, value: bytes) -> None:
        if not name.startswith("user.") or name.startswith("user.overlay."):
            self._skip(path, f"attribute {name}")
            return
        try:
            os.setxattr(place, name, value)
        except OSError as error:
            if error.errno not in _UNFIT:
                raise
            self._skip(path, f"attribute {name}")

    def _link(self, path: Path, target: Path) -> None:
        if not target:
            raise BadRequest("hard link", "to the root of the archive")
        if self._is_same(path, target):
            return
        if target in self._devices:
            self._skip_device(path)
            return
        self._devices.discard(path)

        def make(parent: int, _: Path) -> None:
            parent, name = os.dup(parent), path[-1]
            try:
                source, _ = self._root.directory(target[:-1])
                self._refuse_odd_target(source, target)
                os.link(
                    target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False
                )
            finally:
                os.close(parent)

        self._place(path, make)

    def _is_same(self, path: Path, target: Path) -> bool:
        """Whether both are one name, perhaps by way of a link: making it would unmake it."""
        if path[-1] != target[-1]:
            return False
        return self._root.directory(path[:-1])[1] == self._root.directory(target[:-1])[1]

    def _refuse_odd_target(self, parent: int, target: Path) -> None:
        shown = f"hard link to {'/'.join(target)[:200]!r}"
        try:
            status = os.stat(target[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise BadRequest(shown, "it is not in the archive") from None
        if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise BadRequest(shown, "it is not a file")

    def _white_out(self, path: Path) -> None:
        name = path[-1]
        parent, real = self._root.directory(path[:-1])
        if name == _OPAQUE_MARK:
            self._opaque.add(real)
            return
        if name.startswith(_RESERVED):
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise BadRequest(
                f"archive member {'/'.join(path)[:200]!r}", "a whiteout without a name"
            )
        self._keep(len(hidden))
        self._hidden.add((*real, hidden))
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            # The layer's own entry stays; only what lies below it was to be hidden.
            return
        except PermissionError as error:
            why = f"the state root's file system takes no whiteouts ({error.strerror})"
            mend = "set SANDBOX_ROOT to a directory on ext4, xfs, btrfs or tmpfs, not on overlayfs"
            raise HostLacks("unpack the layer", why, mend) from error

    def _keep(self, size: int) -> None:
        """Count what stays in memory until the end. Raises BadRequest for too much of it."""
        self._kept += _KEPT_EACH + size
        if self._kept > _KEPT_MAX:
            why = f"directories, owners and attributes of more than {_KEPT_MAX >> 20} MiB"
            raise BadRequest("archive", why)

    def _skip_device(self, path: Path) -> None:
        self._skip(path, "device")
        self._devices.add(path)

    def _skip(self, path: Path, what: str) -> None:
        self._keep(sum(map(len, path)) + len(what))
        self._done.skipped.setdefault("/".join(path), []).append(what)

    def _finish_directories(self) -> None:
        """Set what directories were declared to be, deepest first.

        Until now they were 0700, so that neither a missing write bit nor a set-group-ID bit could
        disturb what was made inside them.
        """
        remade = self._hidden & self._root.implied
        self._opaque |= self._hidden & self._directories.keys() | remade
        self._done.remade = sorted("/".join(path) for path in remade)
        self._done.opaque_root = () in self._opaque
        self._done.implied = sorted("/".join(path) for path in self._root.implied)
        everywhere = {(), *self._directories, *self._root.implied, *self._opaque}
        for path in sorted(everywhere, key=len, reverse=True):
            fd, _ = self._root.directory(path)
            self._finish_directory(f"/proc/self/fd/{fd}", path)

    def _finish_directory(self, place: str, path: Path) -> None:
        if path and path in self._opaque:
            os.setxattr(place, OPAQUE, b"y")
        if (member := self._directories.get(path)) is not None:
            self._set_attributes(place, path, member)
        else:
            os.chmod(place, _MODE_IMPLIED)


def _takes_modes(root: int) -> bool:
    """Whether a new file gets the mode that open(2) was told, less the umask: acl(5) says that a
    default ACL of the directory decides instead."""
    try:
        os.getxattr(root, "system.posix_acl_default")
    except OSError as error:
        return error.errno in (errno.ENODATA, errno.ENOTSUP)
    return False
