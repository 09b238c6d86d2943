"""A streaming reader of tar archives: headers and data, and nothing that touches a file system.

POSIX ustar and pax (IEEE Std 1003.1, "pax Interchange Format"), GNU long names and base-256
numbers, and the old format before ustar; GNU's sparse members for those who ask for them. Every
size is bounded before anything is read for it.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.images import sparse
from sandboxd.store.digests import Reader

BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_META_MAX: Final = 1 << 20
"""Bytes of the pax headers and GNU long names of one member."""
_GLOBAL_MAX: Final = 16 << 10
"""Bytes of all global pax headers: they count again for every member that follows."""
_BESIDE_EACH: Final = 4096
_NAME_MAX: Final = 4096
_REMEMBERED: Final = 1024
_SPARSE: Final = ord("S")
_TIME_MAX: Final = 1 << 34
"""Seconds since 1970 that every file system in use can store."""


class Kind(Enum):
    """What a member is; OTHER is a kind that no file system object corresponds to."""

    FILE = "0"
    HARD_LINK = "1"
    SYMLINK = "2"
    CHARACTER = "3"
    BLOCK_DEVICE = "4"
    DIRECTORY = "5"
    FIFO = "6"
    OTHER = "?"


_EXTENSIONS: Final = frozenset("xgLK")
_KINDS: Final = {kind.value: kind for kind in Kind} | {"\0": Kind.FILE, "7": Kind.FILE}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one archive, against bombs: bytes of data, and members."""

    size: int = 64 << 30
    members: int = 2_000_000

    @property
    def beside(self) -> int:
        """Bytes of headers, padding and zeros at the end: 4 KiB for a member on the average."""
        return _META_MAX + self.members * _BESIDE_EACH


@dataclass(slots=True)
class Member:
    """One member. Names are as written, with undecodable bytes as surrogates; `mtime` in ns.

    `extents`: the parts of a sparse file that the archive holds, None for an ordinary member.
    """

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str
    xattrs: dict[str, bytes] = field(default_factory=dict)
    extents: sparse.Extents | None = None

    @property
    def stored(self) -> int:
        """Bytes of data in the archive."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)


@dataclass(slots=True)
class _Extended:
    """What a pax header or GNU long name says about the next member."""

    name: str | None = None
    target: str | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class TarReader:
    """Iterate for the members; between two of them, `data` gives the bytes of the last one.

    `kept` gets every byte of the archive that is not the whole of a file in one piece, in order;
    of a sparse file it gets all. Without `sparse_files` such a file is refused.
    """

    def __init__(
        self,
        stream: Reader,
        limits: Limits | None = None,
        kept: Callable[[memoryview], None] | None = None,
        *,
        sparse_files: bool = False,
    ) -> None:
        self._stream, self._kept = stream, kept
        self._sparse_files, self._in_sparse = sparse_files, False
        self._limits = limits or Limits()
        self._buffer = memoryview(b"")
        self._left = self._padding = 0
        self._beside = self._global_size = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        """Raises BadRequest for a malformed or oversized archive and for data after its end."""
        members = total = 0
        extended = _Extended()
        while (header := self._next_header()) is not None:
            if (flag := chr(header[156])) in _EXTENSIONS:
                self._read_extension(flag, header, extended)
                continue
            member = self._member(header, extended)
            extended = _Extended()
            members += 1
            total += member.size
            if members > self._limits.members:
                raise BadRequest("archive", f"more than {self._limits.members} members")
            if total > self._limits.size:
                raise BadRequest("archive", f"more than {self._limits.size} bytes of data")
            self._left, self._padding = member.stored, -member.stored % BLOCK
            self._in_sparse = member.extents is not None
            yield member
        self._drain()

    def data(self) -> Iterator[memoryview]:
        """The bytes of the member that was yielded last, in pieces."""
        while self._left:
            piece = self._piece(self._left) if self._in_sparse else self._taken(self._left)
            self._left -= len(piece)
            yield piece

    def _next_header(self) -> bytes | None:
        """The next header that is not zeros; None at the end of the archive."""
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        header = bytes(self._exactly(BLOCK, at_end=True))
        self._count(BLOCK)
        if not header or not any(header):
            return None
        _check(header)
        return header

    def _member(self, header: bytes, extended: _Extended) -> Member:
        records = extended.records
        if self._global:
            records = {**self._global, **records}
        holes = self._sparse(header, records)
        kind = Kind.FILE if holes else _KINDS.get(chr(header[156]), Kind.OTHER)
        name = (
            extended.name
            or _text(records.get("GNU.sparse.name") or records.get("path"))
            or _header_name(header)
        )
        size = _decimal(records, "size", _number(header[124:136]))
        if holes is not None:
            if sum(length for _, length in holes.extents) + holes.used != size:
                raise BadRequest("archive", f"a sparse member of another size than {size} bytes")
            size = holes.size
        elif kind is Kind.FILE and name.endswith("/") and (header[156] == 0 or not size):
            kind = Kind.DIRECTORY  # as before ustar; data that flag "0" announces is there, though
        has_data = kind in (Kind.FILE, Kind.OTHER)
        target = _target(header, records, extended)
        if max(len(name), len(target)) > _NAME_MAX:
            raise BadRequest("archive", f"a name longer than {_NAME_MAX} characters: {name[:80]!r}")
        if "\0" in name or "\0" in target:
            raise BadRequest("archive", f"a name with a NUL: {name[:80]!r}")
        return Member(
            name,
            kind,
            stat.S_IMODE(_number(header[100:108])),
            _decimal(records, "uid", _number(header[108:116])),
            _decimal(records, "gid", _number(header[116:124])),
            size if has_data else 0,
            _time(records.get("mtime"), header),
            target,
            _xattrs(records),
            None if holes is None else holes.extents,
        )

    def _sparse(self, header: bytes, records: dict[str, bytes]) -> sparse.Sparse | None:
        found = None
        if header[156] == _SPARSE:
            found = sparse.old(memoryview(header), _number, self._sparse_block)
        elif records and _KINDS.get(chr(header[156])) is Kind.FILE:
            found = sparse.pax(records, self._sparse_block)
        if found is not None and not self._sparse_files:
            mend = "make the archive without tar's option --sparse"
            raise BadRequest("archive", "it holds a sparse member", mend)
        return found

    def _sparse_block(self) -> memoryview:
        self._count(BLOCK)
        return self._exactly(BLOCK)

    def _read_extension(self, flag: str, header: bytes, extended: _Extended) -> None:
        size = _number(header[124:136])
        extended.size += size
        if extended.size > _META_MAX:
            raise BadRequest("archive", f"an extended header of {extended.size} bytes")
        self._count(size)
        data = bytes(self._exactly(size))
        self._padding = -size % BLOCK
        if flag == "L":
            extended.name = _text(data.rstrip(b"\0"))
        elif flag == "K":
            extended.target = _text(data.rstrip(b"\0"))
        elif flag == "x":
            extended.records.update(_pax(data))
        else:
            self._global_size += size
            if self._global_size > _GLOBAL_MAX:
                raise BadRequest("archive", f"global headers of {self._global_size} bytes")
            self._global.update(_pax(data))

    def _count(self, size: int) -> None:
        self._beside += size
        if self._beside > self._limits.beside:
            raise BadRequest("archive", f"more than {self._limits.beside} bytes that are no data")

    def _drain(self) -> None:
        """Read to the stream's end, so that digests cover every byte; only zeros may come."""
        while piece := self._piece(_CHUNK, at_end=True):
            self._count(len(piece))
            if any(bytes(piece).strip(b"\0")):
                raise BadRequest("archive", "data after its end")

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._piece(size))

    def _exactly(self, size: int, *, at_end: bool = False) -> memoryview:
        """`size` bytes; empty when `at_end` is allowed and the stream ends right here."""
        first = self._piece(size, at_end=at_end)
        if len(first) == size or not first:
            return first
        parts = [bytes(first)]
        missing = size - len(first)
        while missing:
            parts.append(bytes(self._piece(missing)))
            missing -= len(parts[-1])
        return memoryview(b"".join(parts))

    def _piece(self, size: int, *, at_end: bool = False) -> memoryview:
        """Between 1 and `size` bytes that are no file's data, or none at the end where allowed."""
        piece = self._taken(size, at_end=at_end)
        if self._kept is not None:
            self._kept(piece)
        return piece

    def _taken(self, size: int, *, at_end: bool = False) -> memoryview:
        """Between 1 and `size` bytes of the stream, or none at its end where that is allowed."""
        if size == 0:
            return memoryview(b"")
        if not self._buffer:
            self._buffer = memoryview(self._stream.read(_CHUNK))
            if not self._buffer and not at_end:
                raise BadRequest("archive", "it ends too early")
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece


def _check(header: bytes) -> None:
    """The header's checksum, of unsigned bytes or, as old programs wrote it, of signed ones.

    zlib.adler32 from 0 is the sum modulo 65521 in its low half: ten times faster than sum().
    """
    expected = _number(header[148:156])
    blanks = 8 * ord(" ")
    rest = zlib.adler32(header[156:], zlib.adler32(header[:148], 0)) & 0xFFFF
    if (rest + blanks) % 65521 == expected % 65521:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in (*header[:148], *header[156:]))
    if signed + blanks != expected:
        raise BadRequest("archive", "a header's checksum is wrong: not a tar archive, or damaged")


def _number(digits: bytes | memoryview) -> int:
    """An octal number, or base-256 where the first bit is set: never negative."""
    return _decoded(bytes(digits))


@lru_cache(_REMEMBERED)
def _decoded(digits: bytes) -> int:
    """Remembered, since modes, owners and times are the same few for most members."""
    if digits[0] & 0x80:
        if digits[0] != 0x80:
            raise BadRequest("archive", "a negative or oversized number in a header")
        return int.from_bytes(digits[1:], "big")
    text = digits.partition(b"\0")[0].strip()
    if text.strip(b"01234567"):
        raise BadRequest("archive", f"not an octal number in a header: {text!r}")
    return int(text, 8) if text else 0


def _header_name(header: bytes) -> str:
    name = _string(header[:100])
    if header[345] and header[257:263] == b"ustar\0":
        return f"{_string(header[345:500])}/{name}"
    return name


def _target(header: bytes, records: dict[str, bytes], extended: _Extended) -> str:
    return extended.target or _text(records.get("linkpath")) or _string(header[157:257])


def _string(raw: bytes) -> str:
    return _text(raw.partition(b"\0")[0])


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record."""
    records: dict[str, bytes] = {}
    at, data = 0, data.rstrip(b"\0")
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or b"\0" in key or end > len(data):
            raise BadRequest("archive", "a malformed pax record")
        name = _text(key)
        if name in sparse.PAX_REPEATED:  # form 0.0: the one key that may come more than once
            name, value = sparse.PAX_MAP, records.get(sparse.PAX_MAP, b"") + b"," + value
        records[name] = value[:-1]
        at = end
    return records


def _decimal(records: dict[str, bytes], key: str, otherwise: int) -> int:
    value = records.get(key, b"")
    if not value:
        return otherwise
    if not value.isdigit() or len(value) > 20:
        raise BadRequest("archive", f"pax {key}={value[:40]!r} is not a number")
    return int(value)


def _time(value: bytes | None, header: bytes) -> int:
    """Nanoseconds since 1970, clamped to what file systems can store."""
    if not value:
        raw = header[136:148]
        # GNU tar writes times before 1970 as negative base-256 numbers.
        seconds = 0 if raw[0] == 0xFF else _number(raw)
        return min(seconds, _TIME_MAX) * 10**9
    whole, _, fraction = value.partition(b".")
    if not (whole.removeprefix(b"-").isdigit() and (not fraction or fraction.isdigit())):
        raise BadRequest("archive", f"pax mtime={value[:40]!r} is not a time")
    if whole.startswith(b"-"):
        return 0
    return min(int(whole[:20]), _TIME_MAX) * 10**9 + int((fraction[:9] or b"0").ljust(9, b"0"))


def _xattrs(records: dict[str, bytes]) -> dict[str, bytes]:
    if not records:
        return {}
    prefix = "SCHILY.xattr."
    return {
        key.removeprefix(prefix): value for key, value in records.items() if key.startswith(prefix)
    }
