"""How a layer's archive was written, apart from the data of its files: what gives its bytes back.

A layer's diffID is the digest of one particular archive, and other programs write archives in other
ways. So while an archive is unpacked, everything in it but file data is kept beside the layer,
compressed: headers, padding, members that were left out. Replayed, with the data read from the
layer's directory, that is the same archive (the idea of tar-split). Data that a later member of the
same name replaced is appended.

A recipe is a deflated sequence of frames, `R` length bytes for what is kept and `F` size length
path for a file's data; behind it lie replaced data, a JSON table of them, and the two lengths.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sandboxd.errors import SandboxError
from sandboxd.images.fast_zlib import fast
from sandboxd.store import trees

_KEPT: Final = struct.Struct("<cI")
_FILE: Final = struct.Struct("<cQH")
_TRAILER: Final = struct.Struct("<QI")
_GATHER: Final = 1 << 16
_CHUNK: Final = 1 << 20
_LEVEL: Final = 1
_NAMED: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Recorder:
    """Writes a recipe to the new file `path`; `kept` and `file` come in the archive's order."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115
        self._path = path
        self._deflate = fast.compressobj(_LEVEL)
        self._pending = bytearray()
        self._kept = bytearray()
        self._files = 0
        self._moves: dict[bytes, list[tuple[int, str]]] = {}

    def kept(self, data: bytes | memoryview) -> None:
        """Bytes of the archive that are in no file of the layer; as many as somebody likes."""
        self._kept += data
        if len(self._kept) >= _GATHER:
            self._flush_kept()
            self._deflated(self._deflate.compress(bytes(self._pending)))
            self._pending.clear()

    def file(self, name: bytes, size: int) -> None:
        """Here are `size` bytes that are the content of `name` in the layer's directory."""
        if self._kept:
            self._flush_kept()
        self._pending += _FILE.pack(b"F", size, len(name))
        self._pending += name
        self._files += 1
        if len(self._pending) >= _GATHER:
            self._deflated(self._deflate.compress(bytes(self._pending)))
            self._pending.clear()

    def moved(self, name: bytes, aside: str) -> None:
        """What was written as `name` so far now lies at `aside` in the attic."""
        self._moves.setdefault(name, []).append((self._files, aside))

    def finish(self, attic: int) -> None:
        """Write what is left; `attic` is a descriptor of the directory of replaced things."""
        self._flush_kept()
        self._deflated(self._deflate.compress(bytes(self._pending)) + self._deflate.flush())
        length = self._file.tell()
        table = self._append_replaced(attic, length) if self._moves else {}
        encoded = json.dumps(table).encode()
        self._deflated(encoded + _TRAILER.pack(length, len(encoded)))
        self.close()

    def close(self) -> None:
        self._file.close()

    def _flush_kept(self) -> None:
        self._pending += _KEPT.pack(b"R", len(self._kept))
        self._pending += self._kept
        self._kept.clear()

    def _append_replaced(self, attic: int, length: int) -> dict[str, list[int]]:
        """Append the data of files that are in the attic: number to offset and bytes."""
        table: dict[str, list[int]] = {}
        with self._path.open("rb") as own:
            for number, (name, size) in enumerate(_files_of(own, length)):
                aside = self._where(name, number)
                if aside is not None:
                    table[str(number)] = [self._file.tell(), size]
                    for piece in _content(attic, os.fsencode(aside), size):
                        self._deflated(piece)
        return table

    def _where(self, name: bytes, number: int) -> str | None:
        """Where in the attic file `number` is: it was there before the first later move of its
        name."""
        for count, aside in self._moves.get(name, ()):
            if number < count:
                return aside
        return None

    def _deflated(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def replay(recipe: Path, tree: Path, sink: Callable[[bytes | memoryview], object]) -> None:
    """Write the archive to `sink` from its recipe and the layer's directory.

    Whether it is the same archive is for the caller to check by its digest. Raises SandboxError
    where the recipe or the directory is damaged, OSError.
    """
    with open(recipe, "rb") as file:
        length, table = _trailer(file)
        root = trees.open_tree(tree)
        try:
            _replay(file, length, table, _Directories(root), sink)
        finally:
            os.close(root)


def _replay(
    file: BinaryIO,
    length: int,
    table: dict[str, list[int]],
    directories: _Directories,
    sink: Callable[[bytes | memoryview], object],
) -> None:
    number = 0
    pending = bytearray()
    for name, size, kept in _frames(file, length):
        pending += kept
        if len(pending) >= _CHUNK or (name is not None and size >= _GATHER and pending):
            sink(bytes(pending))
            pending.clear()
        if name is None:
            continue
        place = table.get(str(number))
        number += 1
        pieces = _section(file, *place) if place else directories.content(name, size)
        for piece in pieces:
            if size < _GATHER:
                pending += piece
            else:
                sink(piece)
    directories.close()
    if pending:
        sink(bytes(pending))


class _Directories:
    """The directory of the last file stays open: the next one is nearly always in it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: bytes | None = None
        self._fd = -1

    def content(self, path: bytes, size: int) -> Iterator[bytes]:
        above, _, name = path.rpartition(b"/")
        if above != self._path:
            self.close()
            self._fd = _opened(self._root, above)
            self._path = above
        return _content(self._fd, name, size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path = -1, None


def _opened(root: int, path: bytes) -> int:
    fd = os.open(".", _NAMED, dir_fd=root)
    for part in path.split(b"/") if path else ():
        try:
            child = os.open(part, _NAMED, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def _content(parent: int, path: bytes, size: int) -> Iterator[bytes]:
    """The bytes of a file below `parent`. Raises SandboxError when they are fewer than `size`."""
    above, _, name = path.rpartition(b"/")
    directory = _opened(parent, above) if above else os.dup(parent)
    try:
        fd = os.open(name, _READ, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        left = size
        while left:
            data = os.read(fd, min(left, _CHUNK))
            if not data:
                raise _damaged(f"{os.fsdecode(path)} is too short")
            left -= len(data)
            yield data
    finally:
        os.close(fd)


def _section(file: BinaryIO, at: int, size: int) -> Iterator[bytes]:
    """Replaced data, read without disturbing where the frames are read."""
    while size:
        data = os.pread(file.fileno(), min(size, _CHUNK), at)
        if not data:
            raise _damaged("replaced data is missing")
        at, size = at + len(data), size - len(data)
        yield data


def _trailer(file: BinaryIO) -> tuple[int, dict[str, list[int]]]:
    end = file.seek(0, os.SEEK_END)
    if end < _TRAILER.size:
        raise _damaged("it is too short")
    length, size = _TRAILER.unpack(os.pread(file.fileno(), _TRAILER.size, end - _TRAILER.size))
    table: dict[str, list[int]] = json.loads(
        os.pread(file.fileno(), size, end - _TRAILER.size - size)
    )
    return length, table


def _files_of(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int]]:
    for name, size, _ in _frames(file, length):
        if name is not None:
            yield name, size


def _frames(file: BinaryIO, length: int) -> Iterator[tuple[bytes | None, int, bytes]]:
    """Frames as (path, size, b"") for a file's data and (None, 0, bytes) for what was kept."""
    stream = _Inflated(file, length)
    while kind := stream.peek():
        if kind == b"R":
            _, size = _KEPT.unpack(stream.exactly(_KEPT.size))
            yield None, 0, stream.exactly(size)
        elif kind == b"F":
            _, size, name = _FILE.unpack(stream.exactly(_FILE.size))
            yield stream.exactly(name), size, b""
        else:
            raise _damaged("an unknown frame")


class _Inflated:
    """The first `length` bytes of a file, decompressed, in portions of any size."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._at, self._end = file, 0, length
        self._inflate = fast.decompressobj()
        self._buffer = memoryview(b"")

    def peek(self) -> bytes:
        """The next byte, empty at the end."""
        if not self._buffer:
            self._fill()
        return bytes(self._buffer[:1])

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            if not self._buffer:
                self._fill()
                if not self._buffer:
                    raise _damaged("it ends too early")
            parts.append(bytes(self._buffer[:size]))
            self._buffer = self._buffer[size:]
            size -= len(parts[-1])
        return b"".join(parts)

    def _fill(self) -> None:
        while not self._buffer:
            data = self._inflate.unconsumed_tail
            if not data:
                left = min(_GATHER, self._end - self._at)
                data = os.pread(self._file.fileno(), left, self._at)
                self._at += len(data)
                if not data:
                    return
            self._buffer = memoryview(self._inflate.decompress(data, _CHUNK))


def _damaged(why: str) -> SandboxError:
    return SandboxError("a layer's recipe is damaged", why, "remove the image and pull it again")
