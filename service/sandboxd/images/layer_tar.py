"""A layer's directory as a tar archive: the same directory gives the same bytes, whoever asks.

Members come sorted, without user and group names, times in whole seconds; overlayfs' whiteouts and
opaque marks become those of the OCI image specification (layer.md, "Whiteouts"). Owners that the id
map could not give the files are read from the layer's metadata. For a layer that was unpacked from
somebody else's archive use `layer_export`, which gives that archive's own bytes back.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.errors import SandboxError
from sandboxd.images import tar_header
from sandboxd.linux.idmap import IdMap
from sandboxd.linux.xattrs import is_opaque, is_overlays_own
from sandboxd.store import trees
from sandboxd.store.database import Document
from sandboxd.store.trees import Entry, is_whiteout

Sink = Callable[[bytes | memoryview], object]
"""Takes the next bytes; what it is given may be reused afterwards only if it is bytes."""

ARCHIVE_SIZE: Final = "archive_size"
"""Where a layer's metadata says how many bytes its archive has."""

_CHUNK: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WHITEOUT: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_ORDINARY_ROOT: Final = 0o755
_KINDS: Final = {
    stat.S_IFREG: tar_header.FILE,
    stat.S_IFDIR: tar_header.DIRECTORY,
    stat.S_IFLNK: tar_header.SYMLINK,
    stat.S_IFIFO: tar_header.FIFO,
    stat.S_IFCHR: tar_header.CHARACTER,
    stat.S_IFBLK: tar_header.BLOCK_DEVICE,
}


class LayerTar(NamedTuple):
    """An archive that was written: the digest of its bytes, and how many there were."""

    diff_id: str
    size: int


def write_layer(
    tree: Path,
    metadata: Document,
    sink: Sink,
    idmap: IdMap,
    *,
    clamp: int | None = None,
) -> LayerTar:
    """Write `tree` to `sink`. Nobody may change it meanwhile; sockets are left out.

    `metadata` is the layer's, of which `owners` and `opaque_root` count. With `clamp`, in seconds
    since 1970, no time is later than that. Raises SandboxError for a file that cannot be read.
    """
    root = trees.open_tree(tree)
    try:
        return _Writer(metadata, sink, clamp).write(root)
    except OSError as error:
        raise SandboxError.from_os("write a layer's archive", error) from error
    finally:
        os.close(root)


class _Writer:
    def __init__(self, metadata: Document, sink: Sink, clamp: int | None) -> None:
        self._sink = sink
        self._owners = metadata.get("owners") or {}
        self._opaque_root = bool(metadata.get("opaque_root"))
        self._clamp = clamp
        self._hash = hashlib.sha256()
        self._size = 0
        self._linked: dict[tuple[int, int], bytes] = {}
        self._pending = bytearray()

    def write(self, root: int) -> LayerTar:
        status = os.fstat(root)
        owner = self._owner("", status)
        if owner != (0, 0) or stat.S_IMODE(status.st_mode) != _ORDINARY_ROOT:
            self._put(self._directory(b"./", root, status, owner))
        if self._opaque_root:
            self._put(tar_header.header(_OPAQUE_MARK, tar_header.FILE, mode=0o644))
        for entry in trees.walk(root):
            self._entry(entry)
        self._put(tar_header.END)
        self._flush()
        return LayerTar(f"sha256:{self._hash.hexdigest()}", self._size)

    def _entry(self, entry: Entry) -> None:
        status, path = entry.status, os.fsencode(entry.path)
        mode = status.st_mode
        if is_whiteout(status):
            parent, slash, name = path.rpartition(b"/")
            hidden = parent + slash + _WHITEOUT + name
            self._put(tar_header.header(hidden, tar_header.FILE, mode=0o644))
            return
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            return
        if kind == tar_header.DIRECTORY:
            self._open_directory(entry, path)
            return
        if status.st_nlink > 1 and self._put_link(entry, path):
            return
        if kind == tar_header.FILE:
            self._file(entry, path)
            return
        target = b""
        if kind == tar_header.SYMLINK:
            target = os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))
        uid, gid = self._owner(entry.path, status)
        self._put(
            tar_header.header(
                path,
                kind,
                mode=0o777 if kind == tar_header.SYMLINK else stat.S_IMODE(mode),
                uid=uid,
                gid=gid,
                mtime=self._time(status),
                target=target,
                device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
            )
        )

    def _open_directory(self, entry: Entry, path: bytes) -> None:
        fd = os.open(entry.name, trees.DIRECTORY, dir_fd=entry.parent)
        try:
            owner = self._owner(entry.path, entry.status)
            self._put(self._directory(path + b"/", fd, entry.status, owner))
            if is_opaque(fd):
                mark = tar_header.header(path + b"/" + _OPAQUE_MARK, tar_header.FILE, mode=0o644)
                self._put(mark)
        finally:
            os.close(fd)

    def _directory(
        self, name: bytes, fd: int, status: os.stat_result, owner: tuple[int, int]
    ) -> bytes:
        return tar_header.header(
            name,
            tar_header.DIRECTORY,
            mode=stat.S_IMODE(status.st_mode),
            uid=owner[0],
            gid=owner[1],
            mtime=self._time(status),
            xattrs=content_attributes(fd),
        )

    def _put_link(self, entry: Entry, path: bytes) -> bool:
        """A hard link, where the same inode was written before.

        It repeats the owner and the attributes: Docker sets them once more when it unpacks a link,
        and a chown(2) to somebody else would take the file's capabilities.
        """
        status = entry.status
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        uid, gid = self._owner(os.fsdecode(first), status)
        self._put(
            tar_header.header(
                path,
                tar_header.HARD_LINK,
                mode=stat.S_IMODE(status.st_mode),
                uid=uid,
                gid=gid,
                mtime=self._time(status),
                target=first,
                xattrs=_attributes_of(entry),
            )
        )
        return True

    def _file(self, entry: Entry, path: bytes) -> None:
        fd = os.open(entry.name, _READ, dir_fd=entry.parent)
        try:
            status = entry.status
            uid, gid = self._owner(entry.path, status)
            self._put(
                tar_header.header(
                    path,
                    tar_header.FILE,
                    mode=stat.S_IMODE(status.st_mode),
                    uid=uid,
                    gid=gid,
                    size=status.st_size,
                    mtime=self._time(status),
                    xattrs=content_attributes(fd),
                )
            )
            self._data(fd, entry)
        finally:
            os.close(fd)

    def _data(self, fd: int, entry: Entry) -> None:
        left = entry.status.st_size
        while left:
            data = os.read(fd, min(left, _CHUNK))
            if not data:
                raise SandboxError(f"write a layer's archive: {entry.path}", "it got shorter")
            left -= len(data)
            self._put(data)
        self._put(tar_header.padding(entry.status.st_size))

    def _owner(self, path: str, status: os.stat_result) -> tuple[int, int]:
        known = self._owners.get(path)
        return (known[0], known[1]) if known else (status.st_uid, status.st_gid)

    def _time(self, status: os.stat_result) -> int:
        seconds = max(0, status.st_mtime_ns // 10**9)
        return seconds if self._clamp is None else min(seconds, self._clamp)

    def _put(self, data: bytes) -> None:
        """Small pieces are gathered: each call of a hash or a sink gives the interpreter away."""
        if len(data) >= _CHUNK // 4:
            self._flush()
            self._hand_on(data)
            return
        self._pending += data
        if len(self._pending) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._hand_on(data)

    def _hand_on(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._sink(data)


def _attributes_of(entry: Entry) -> dict[str, bytes]:
    if not stat.S_ISREG(entry.status.st_mode):
        return {}
    fd = os.open(entry.name, _READ, dir_fd=entry.parent)
    try:
        return content_attributes(fd)
    finally:
        os.close(fd)


def content_attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes of an open file that are part of a layer, by name.

    Those of users, and file capabilities where a privileged container set them; never the marks of
    overlayfs or what belongs to this machine's security module.
    """
    names = os.listxattr(fd)
    if not names:
        return {}
    return {
        name: os.getxattr(fd, name)
        for name in names
        if (name.startswith("user.") or name == "security.capability") and not is_overlays_own(name)
    }
