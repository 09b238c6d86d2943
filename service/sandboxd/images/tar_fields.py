"""The fields of a tar header and of pax records: what their bytes say.

POSIX ustar and pax, the old format before them, and GNU's base-256 numbers. Everything here raises
BadRequest for what none of them allows.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

from sandboxd.errors import BadRequest
from sandboxd.images import sparse

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s82x155s12x")
_REMEMBERED: Final = 4096
_BLANKS: Final = 8 * ord(" ")
_TIME_MAX: Final = 1 << 34
"""Seconds since 1970 that every file system in use can store."""


class Header(NamedTuple):
    """A header's fields as they stand there."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    flag: bytes
    target: bytes
    magic: bytes
    prefix: bytes

    @classmethod
    def of(cls, block: bytes) -> Header:
        """The fields of 512 bytes whose checksum is right."""
        header = cls._make(_FIELDS.unpack(block))
        _check(block, header.checksum)
        return header

    @property
    def path(self) -> str:
        name = string(self.name)
        if self.prefix[0] and self.magic == b"ustar\0":
            return f"{string(self.prefix)}/{name}"
        return name


def _check(block: bytes, field: bytes) -> None:
    """The header's checksum, of unsigned bytes or, as old programs wrote it, of signed ones.

    zlib.adler32 from 0 is the sum modulo 65521 in its low half: ten times faster than sum().
    """
    expected = number(field)
    rest = zlib.adler32(block[156:], zlib.adler32(block[:148], 0)) & 0xFFFF
    if (rest + _BLANKS) % 65521 == expected % 65521:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in (*block[:148], *block[156:]))
    if signed + _BLANKS != expected:
        raise BadRequest("archive", "a header's checksum is wrong: not a tar archive, or damaged")


@lru_cache(_REMEMBERED)
def number(digits: bytes) -> int:
    """An octal number, or base-256 where the first bit is set: never negative.

    Remembered, since modes, owners and times are the same few for most members.
    """
    if digits[0] & 0x80:
        if digits[0] != 0x80:
            raise BadRequest("archive", "a negative or oversized number in a header")
        return int.from_bytes(digits[1:], "big")
    text_ = digits.partition(b"\0")[0].strip()
    if text_.strip(b"01234567"):
        raise BadRequest("archive", f"not an octal number in a header: {text_!r}")
    return int(text_, 8) if text_ else 0


def string(raw: bytes) -> str:
    """A field that a NUL ends where it is shorter than its place."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "surrogateescape")


def pax_records(data: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record."""
    records: dict[str, bytes] = {}
    at, data = 0, data.rstrip(b"\0")
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or b"\0" in key or end > len(data):
            raise BadRequest("archive", "a malformed pax record")
        name = text(key)
        if name in sparse.PAX_REPEATED:  # form 0.0: the one key that may come more than once
            name, value = sparse.PAX_MAP, records.get(sparse.PAX_MAP, b"") + b"," + value
        records[name] = value[:-1]
        at = end
    return records


def decimal(records: dict[str, bytes], key: str, otherwise: int) -> int:
    """The number that a pax record gives, or `otherwise` where there is no such record."""
    value = records.get(key, b"")
    if not value:
        return otherwise
    if not value.isdigit() or len(value) > 20:
        raise BadRequest("archive", f"pax {key}={value[:40]!r} is not a number")
    return int(value)


@lru_cache(_REMEMBERED)
def header_time(raw: bytes) -> int:
    """Nanoseconds since 1970, clamped to what file systems can store."""
    # GNU tar writes times before 1970 as negative base-256 numbers.
    seconds = 0 if raw[0] == 0xFF else number(raw)
    return min(seconds, _TIME_MAX) * 10**9


def pax_time(value: bytes) -> int:
    """Nanoseconds since 1970, clamped like those of headers."""
    whole, _, fraction = value.partition(b".")
    if not (whole.removeprefix(b"-").isdigit() and (not fraction or fraction.isdigit())):
        raise BadRequest("archive", f"pax mtime={value[:40]!r} is not a time")
    if whole.startswith(b"-"):
        return 0
    return min(int(whole[:20]), _TIME_MAX) * 10**9 + int((fraction[:9] or b"0").ljust(9, b"0"))


def xattrs(records: dict[str, bytes]) -> dict[str, bytes]:
    prefix = "SCHILY.xattr."
    return {
        key.removeprefix(prefix): value for key, value in records.items() if key.startswith(prefix)
    }
