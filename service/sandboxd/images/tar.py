"""A streaming reader of tar archives: headers and data, and nothing that touches a file system.

POSIX ustar and pax (IEEE Std 1003.1, "pax Interchange Format"), GNU long names and base-256
numbers, and the old format before ustar; GNU's sparse members for those who ask for them. Every
size is bounded before anything is read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.images import sparse, tar_fields
from sandboxd.images.tar_fields import Header
from sandboxd.store.digests import Reader

BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_META_MAX: Final = 1 << 20
"""Bytes of the pax headers and GNU long names of one member."""
_GLOBAL_MAX: Final = 16 << 10
"""Bytes of all global pax headers: they count again for every member that follows."""
_BESIDE_EACH: Final = 4096
_NAME_MAX: Final = 4096
_SPARSE: Final = b"S"
_MODE: Final = 0o7777
_ZEROS: Final = bytes(BLOCK)
_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


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


_EXTENSIONS: Final = frozenset([b"x", b"g", b"L", b"K"])
_KINDS: Final = {kind.value.encode(): kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}


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
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
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
        self._buffer = b""
        self._view = memoryview(b"")
        self._at = 0
        """Where in the buffer the next byte is; `_view` shows the same bytes."""
        self._left = self._padding = 0
        self._beside = self._global_size = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        """Raises BadRequest for a malformed or oversized archive and for data after its end."""
        members = total = 0
        extended: _Extended | None = None
        limits = self._limits
        while block := self._next_block():
            header = Header.of(block)
            if header.flag in _EXTENSIONS:
                extended = extended or _Extended()
                self._read_extension(header, extended)
                continue
            if extended is None and not self._global and header.flag != _SPARSE:
                member = _plain(header)
            else:
                member = self._extended(block, header, extended or _Extended())
                extended = None
            members += 1
            total += member.size
            if members > limits.members:
                raise BadRequest("archive", f"more than {limits.members} members")
            if total > limits.size:
                raise BadRequest("archive", f"more than {limits.size} bytes of data")
            self._in_sparse = member.extents is not None
            self._left = member.stored if self._in_sparse else member.size
            self._padding = -self._left % BLOCK
            yield member
        self._drain()

    def data(self) -> Iterator[memoryview]:
        """The bytes of the member that was yielded last, in pieces."""
        while self._left:
            piece = self._piece(self._left) if self._in_sparse else self._taken(self._left)
            self._left -= len(piece)
            yield piece

    def _next_block(self) -> bytes:
        """The next header that is not zeros; empty at the end of the archive."""
        skipped = self._left + self._padding
        self._left = self._padding = 0
        self._count(BLOCK)
        begin, end = self._at + skipped, self._at + skipped + BLOCK
        if end <= len(self._buffer):
            block = self._buffer[begin:end]
            if self._kept is not None:
                self._kept(self._view[self._at : end])
            self._at = end
        else:
            self._skip(skipped)
            block = bytes(self._exactly(BLOCK, at_end=True))
        return b"" if block == _ZEROS else block

    def _extended(self, block: bytes, header: Header, extended: _Extended) -> Member:
        """A member about which there is more than its own header says."""
        records = extended.records
        if self._global:
            records = {**self._global, **records}
        holes = self._sparse(block, header, records)
        kind = Kind.FILE if holes else _KINDS.get(header.flag, Kind.OTHER)
        name = (
            extended.name
            or tar_fields.text(records.get("GNU.sparse.name") or records.get("path"))
            or header.path
        )
        size = tar_fields.decimal(records, "size", tar_fields.number(header.size))
        if holes is not None:
            if sum(length for _, length in holes.extents) + holes.used != size:
                raise BadRequest("archive", f"a sparse member of another size than {size} bytes")
            size = holes.size
        target = extended.target or tar_fields.text(records.get("linkpath"))
        modified = records.get("mtime")
        return _checked(
            Member(
                name,
                kind,
                tar_fields.number(header.mode) & _MODE,
                tar_fields.decimal(records, "uid", tar_fields.number(header.uid)),
                tar_fields.decimal(records, "gid", tar_fields.number(header.gid)),
                size,
                tar_fields.pax_time(modified) if modified else tar_fields.header_time(header.mtime),
                target or tar_fields.string(header.target),
                tar_fields.xattrs(records),
                None if holes is None else holes.extents,
            ),
            header.flag,
        )

    def _sparse(
        self, block: bytes, header: Header, records: dict[str, bytes]
    ) -> sparse.Sparse | None:
        found = None
        if header.flag == _SPARSE:
            found = sparse.old(memoryview(block), _field_number, self._sparse_block)
        elif records and _KINDS.get(header.flag) is Kind.FILE:
            found = sparse.pax(records, self._sparse_block)
        if found is not None and not self._sparse_files:
            mend = "make the archive without tar's option --sparse"
            raise BadRequest("archive", "it holds a sparse member", mend)
        return found

    def _sparse_block(self) -> memoryview:
        self._count(BLOCK)
        return self._exactly(BLOCK)

    def _read_extension(self, header: Header, extended: _Extended) -> None:
        size = tar_fields.number(header.size)
        extended.size += size
        if extended.size > _META_MAX:
            raise BadRequest("archive", f"an extended header of {extended.size} bytes")
        self._count(size)
        data = bytes(self._exactly(size))
        self._padding = -size % BLOCK
        if header.flag == b"L":
            extended.name = tar_fields.text(data.rstrip(b"\0"))
        elif header.flag == b"K":
            extended.target = tar_fields.text(data.rstrip(b"\0"))
        elif header.flag == b"x":
            extended.records.update(tar_fields.pax_records(data))
        else:
            self._global_size += size
            if self._global_size > _GLOBAL_MAX:
                raise BadRequest("archive", f"global headers of {self._global_size} bytes")
            self._global.update(tar_fields.pax_records(data))

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
        if size and self._at == len(self._buffer):
            self._buffer = self._stream.read(_CHUNK)
            self._view = memoryview(self._buffer)
            self._at = 0
            if not self._buffer and not at_end:
                raise BadRequest("archive", "it ends too early")
        piece = self._view[self._at : self._at + size]
        self._at += len(piece)
        return piece


def _plain(header: Header) -> Member:
    """A member of whose header nothing else says anything."""
    number = tar_fields.number
    return _checked(
        Member(
            header.path,
            _KINDS.get(header.flag, Kind.OTHER),
            number(header.mode) & _MODE,
            number(header.uid),
            number(header.gid),
            number(header.size),
            tar_fields.header_time(header.mtime),
            tar_fields.string(header.target),
            _NONE,
        ),
        header.flag,
    )


def _checked(member: Member, flag: bytes) -> Member:
    """The member, as what it really is. Raises BadRequest for a name that nothing can have."""
    name, target = member.name, member.target
    if member.kind is Kind.FILE:
        if member.extents is None and name[-1:] == "/" and (flag == b"\0" or not member.size):
            # As before ustar; data that flag "0" announces is there, though.
            member.kind, member.size = Kind.DIRECTORY, 0
    elif member.kind is not Kind.OTHER:
        member.size = 0
    if len(name) > _NAME_MAX or len(target) > _NAME_MAX:
        raise BadRequest("archive", f"a name longer than {_NAME_MAX} characters: {name[:80]!r}")
    if "\0" in name or "\0" in target:
        raise BadRequest("archive", f"a name with a NUL: {name[:80]!r}")
    return member


def _field_number(field_: memoryview) -> int:
    return tar_fields.number(bytes(field_))
