"""Sparse members of GNU archives: which of a file's bytes the archive holds, the rest being zeros.

Four forms (GNU tar manual, "Storing Sparse Files"): a map in the header and in blocks behind it
(type `S`), in pax records one for each number (0.0) or all in one (0.1), and in front of the data
(1.0). Image layers should have none of them, but Docker unpacks them, and some have.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest

Extents = tuple[tuple[int, int], ...]
"""Offset and length of each part that is there, in ascending order."""

PAX_PREFIX: Final = "GNU.sparse."
PAX_MAP: Final = "GNU.sparse.map"
PAX_REPEATED: Final = ("GNU.sparse.offset", "GNU.sparse.numbytes")
_EXTENTS_MAX: Final = 100_000
_IN_HEADER, _IN_BLOCK = 4, 21
_PAIR: Final = 24
_DIGITS_MAX: Final = 20


class Sparse(NamedTuple):
    """`size` is the file's, in bytes, `used` what lies in front of the data in the archive."""

    size: int
    extents: Extents
    used: int = 0


def old(
    header: memoryview, number: Callable[[memoryview], int], block: Callable[[], memoryview]
) -> Sparse:
    """The form of type `S`: `number` decodes a field, `block` reads the next block."""
    found, more = [], header[482]
    pairs, table = _IN_HEADER, header[386:]
    while True:
        for at in range(0, pairs * _PAIR, _PAIR):
            if not table[at]:
                break
            found.append((number(table[at : at + 12]), number(table[at + 12 : at + 24])))
        if not more:
            return _checked(number(header[483:495]), found)
        if len(found) > _EXTENTS_MAX:
            raise _malformed("too many parts")
        table, pairs = block(), _IN_BLOCK
        more = table[504]


def pax(records: Mapping[str, bytes], block: Callable[[], memoryview]) -> Sparse | None:
    """The forms in pax records; None where there is none of them."""
    if records.get("GNU.sparse.major") == b"1" and records.get("GNU.sparse.minor") == b"0":
        size = _decimal(records.get("GNU.sparse.realsize", b""))
        return _with_map_in_front(size, block)
    if PAX_MAP in records:
        numbers = [_decimal(text) for text in records[PAX_MAP].strip(b",").split(b",") if text]
        if len(numbers) % 2 or len(numbers) > 2 * _EXTENTS_MAX:
            raise _malformed("its map has the wrong length")
        size = _decimal(records.get("GNU.sparse.size") or records.get("GNU.sparse.realsize", b""))
        return _checked(size, list(zip(numbers[::2], numbers[1::2], strict=True)))
    if any(key.startswith(PAX_PREFIX) for key in records):
        raise _malformed("of a form that is not known")
    return None


def write(fd: int, extents: Extents, pieces: Iterator[memoryview]) -> None:
    """Write the parts, each in its place; what lies between them is never written."""
    piece = memoryview(b"")
    for offset, length in extents:
        while length:
            piece = piece or next(pieces)
            written = os.pwrite(fd, piece[:length], offset)
            piece, offset, length = piece[written:], offset + written, length - written


def _with_map_in_front(size: int, block: Callable[[], memoryview]) -> Sparse:
    """Numbers, each on a line: how many parts, then offset and length of each, up to a block."""
    used, rest, numbers = 0, b"", list[int]()
    wanted = 1
    while len(numbers) < wanted:
        if used > 2 * _EXTENTS_MAX * _DIGITS_MAX:
            raise _malformed("its map has no end")
        used += 512
        *lines, rest = (rest + bytes(block())).split(b"\n")
        numbers += [_decimal(line) for line in itertools.islice(lines, wanted - len(numbers))]
        if wanted == 1 and numbers:
            wanted = 1 + 2 * numbers[0]
            if numbers[0] > _EXTENTS_MAX:
                raise _malformed("too many parts")
            numbers += [_decimal(line) for line in itertools.islice(lines, 1, wanted)]
    return _checked(size, list(zip(numbers[1::2], numbers[2::2], strict=True)), used)


def _checked(size: int, extents: list[tuple[int, int]], used: int = 0) -> Sparse:
    end = 0
    for offset, length in extents:
        if offset < end:
            raise _malformed("its parts overlap")
        end = offset + length
    if end > size:
        raise _malformed("its parts lie behind its end")
    return Sparse(size, tuple(pair for pair in extents if pair[1]), used)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise _malformed(f"{text[:40]!r} is not a number")
    return int(text)


def _malformed(why: str) -> BadRequest:
    mend = "make the archive without tar's option --sparse"
    return BadRequest("archive", f"a sparse member: {why}", mend)
