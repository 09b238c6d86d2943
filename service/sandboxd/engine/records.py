"""The storage of a log: an append-only run of records that forgets its oldest half when full.

A record is a header (length, time in nanoseconds since 1970, stream), the bytes as they were read,
and the record's whole length once more, so that it can be walked from the end. What was cut off by
a crash is recognised by that and dropped.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

_HEADER = struct.Struct("<IQB")
_TRAILER = struct.Struct("<I")
_FRAME = _HEADER.size + _TRAILER.size
PAYLOAD_MAX = 1 << 16
_BLOCK = 2 * (PAYLOAD_MAX + _FRAME)


class Record(NamedTuple):
    stream: int
    """1 for standard output, 2 for standard error."""
    time: int
    """Nanoseconds since 1970, when the bytes were read."""
    data: bytes


def _packed(record: Record) -> bytes:
    size = len(record.data)
    head = _HEADER.pack(size, record.time, record.stream)
    return b"".join((head, record.data, _TRAILER.pack(size + _FRAME)))


def _parsed(block: bytes) -> Iterator[Record]:
    """The whole records at the beginning of `block`."""
    at = 0
    while at + _FRAME <= len(block):
        size, time, stream = _HEADER.unpack_from(block, at)
        end = at + size + _FRAME
        if end > len(block) or _TRAILER.unpack_from(block, end - _TRAILER.size)[0] != size + _FRAME:
            return
        yield Record(stream, time, block[at + _HEADER.size : end - _TRAILER.size])
        at = end


class _Segment(Protocol):
    size: int

    def append(self, data: bytes) -> None: ...
    def read(self, at: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class _Memory:
    def __init__(self) -> None:
        self._data = bytearray()
        self.size = 0

    def append(self, data: bytes) -> None:
        self._data += data
        self.size += len(data)

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._data[at : at + size])

    def close(self) -> None:
        self._data.clear()


class _File:
    """Takes over the descriptor `fd` of a file whose first `size` bytes count."""

    def __init__(self, fd: int, size: int = 0) -> None:
        self._fd = fd
        self.size = size

    def append(self, data: bytes) -> None:
        """All of `data` or none of it: a record is never cut in the middle by a full disk."""
        at = self.size
        try:
            while data:
                written = os.pwrite(self._fd, data, at)
                at, data = at + written, data[written:]
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size = at

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self._fd, min(size, self.size - at), at)

    def close(self) -> None:
        os.close(self._fd)


class Records:
    """Records by position: a number that grows with every byte ever appended.

    Without `path` they live in memory up to `memory` bytes and then in an unnamed file in
    `directory`; with it they are written to `path` at once, and found there again after a restart.
    At most `limit` bytes are kept: when one half of that is full, the older half goes.
    """

    def __init__(self, directory: Path, path: Path | None, *, limit: int, memory: int) -> None:
        self._directory = directory
        self._path = path
        self._half = limit // 2
        self._memory = min(memory, self._half) if path is None else 0
        self._older: _Segment | None = None
        self._newer: _Segment = _Memory()
        self._border = 0
        self._in_memory = True
        if path is not None and path.exists():
            self._reopen(path)

    @property
    def start(self) -> int:
        """The position of the oldest record that is still kept."""
        return self._border - (self._older.size if self._older else 0)

    @property
    def end(self) -> int:
        return self._border + self._newer.size

    def append(self, record: Record) -> None:
        """Raises OSError when the disk is full; the records before it stay whole."""
        packed = _packed(record)
        if self._newer.size and self._newer.size + len(packed) > self._half:
            self._rotate()
        elif self._in_memory and self._newer.size + len(packed) > self._memory:
            self._move_to_file()
        self._newer.append(packed)

    def read(self, at: int, end: int | None = None) -> tuple[list[Record], int]:
        """Some records from position `at` (not before `start`), and the position after them.

        None of them lies behind `end`, a position too.
        """
        limit = _BLOCK if end is None else min(_BLOCK, end - at)
        if self._older and at < self._border:
            segment, base = self._older, self.start
        else:
            segment, base = self._newer, self._border
        records = list(_parsed(segment.read(at - base, limit)))
        if not records:
            return [], base + segment.size
        return records, at + sum(len(record.data) + _FRAME for record in records)

    def backwards(self) -> Iterator[tuple[int, Record]]:
        """Every record with its position, newest first."""
        at = self.end
        for segment, base in ((self._newer, self._border), (self._older, self.start)):
            while segment and at > base:
                (size,) = _TRAILER.unpack(segment.read(at - base - _TRAILER.size, _TRAILER.size))
                at -= size
                yield at, next(_parsed(segment.read(at - base, size)))

    def close(self) -> None:
        """Give back memory and descriptors; a named log stays on disk."""
        for segment in (self._older, self._newer):
            if segment:
                segment.close()
        self._older, self._newer, self._border, self._in_memory = None, _Memory(), self.end, True

    def _rotate(self) -> None:
        fresh = self._fresh_file(rotating=True)
        if self._older:
            self._older.close()
        self._border += self._newer.size
        self._older, self._newer, self._in_memory = self._newer, fresh, False

    def _move_to_file(self) -> None:
        fresh = self._fresh_file()
        fresh.append(self._newer.read(0, self._newer.size))
        self._newer, self._in_memory = fresh, False

    def _fresh_file(self, rotating: bool = False) -> _File:
        if self._path is None:
            # O_TMPFILE where the file system has it: open(2). Else a name that goes at once.
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                return _File(os.dup(file.fileno()))
        if rotating:
            os.replace(self._path, _older_path(self._path))
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return _File(os.open(self._path, flags, 0o600))

    def _reopen(self, path: Path) -> None:
        older = _older_path(path)
        if older.exists():
            self._older = _whole_file(older)
            self._border = self._older.size
        self._newer, self._in_memory = _whole_file(path), False


def _older_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _whole_file(path: Path) -> _File:
    """The file up to its last whole record: a crash may have cut the one behind it."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    size, at = os.fstat(fd).st_size, 0
    while at < size:
        records = list(_parsed(os.pread(fd, _BLOCK, at)))
        if not records:
            break
        at += sum(len(record.data) + _FRAME for record in records)
    return _File(fd, at)
