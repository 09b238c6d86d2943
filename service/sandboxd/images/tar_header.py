"""Headers of tar members as we write them: ustar, and a pax header only where ustar cannot say it.

POSIX, "ustar Interchange Format" and "pax Interchange Format". No user or group names, whole
seconds, nothing that differs between two machines: the same member gives the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""Two blocks of zeros end an archive."""

FILE: Final = b"0"
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAGIC: Final = b"ustar\x0000"
_ID_MAX: Final = 0o7777777
_SIZE_MAX: Final = 0o77777777777
_XATTR: Final = b"SCHILY.xattr."


def header(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
) -> bytes:
    """The header of one member, with a pax header before it where it needs one.

    `mtime` is in seconds since 1970, `size` in bytes; what the data is padded to is the caller's.
    """
    records: dict[bytes, bytes] = {}
    prefix, short = _split(name)
    if short is None:
        records[b"path"] = name
        prefix, short = b"", _ascii(name)[:100]
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
    for key, number, most in ((b"uid", uid, _ID_MAX), (b"gid", gid, _ID_MAX)):
        if number > most:
            records[key] = b"%d" % number
    if size > _SIZE_MAX:
        records[b"size"] = b"%d" % size
    if mtime > _SIZE_MAX:
        records[b"mtime"] = b"%d" % mtime
    for attribute, value in sorted((xattrs or {}).items()):
        records[_XATTR + attribute.encode("utf-8", "surrogateescape")] = value
    plain = _block(
        short,
        kind,
        mode,
        uid if uid <= _ID_MAX else 0,
        gid if gid <= _ID_MAX else 0,
        size if size <= _SIZE_MAX else 0,
        mtime if mtime <= _SIZE_MAX else 0,
        _ascii(target)[:100],
        device,
        prefix,
    )
    return _pax(records, short) + plain if records else plain


def padding(size: int) -> bytes:
    """The zeros after data of `size` bytes."""
    return bytes(-size % BLOCK)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    target: bytes,
    device: tuple[int, int],
    prefix: bytes,
) -> bytes:
    is_device = kind in (CHARACTER, BLOCK_DEVICE)
    major, minor = (b"%07o\0" % number if is_device else b"" for number in device)
    fields = [
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,
        kind,
        target,
        _MAGIC,
        b"",
        b"",
        major,
        minor,
        prefix,
    ]
    # zlib.adler32 from 0 has the sum modulo 65521 in its low half; ASCII fields stay below that.
    fields[6] = b"%06o\0 " % (zlib.adler32(_FIELDS.pack(*fields), 0) & 0xFFFF)
    return _FIELDS.pack(*fields)


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """A name as ustar's prefix and name; no name where it does not fit or is not ASCII."""
    if not name.isascii():
        return b"", None
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, 156)
    while cut > 0 and len(name) - cut - 1 <= 100:
        if len(name) - cut - 1 > 0:
            return name[:cut], name[cut + 1 :]
        cut = name.rfind(b"/", 0, cut)
    return b"", None


def _ascii(name: bytes) -> bytes:
    return name.decode("ascii", "replace").encode("ascii", "replace")


def _pax(records: Mapping[bytes, bytes], name: bytes) -> bytes:
    data = b"".join(_record(key, value) for key, value in records.items())
    label = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
    block = _block(label, b"x", 0o644, 0, 0, len(data), 0, b"", (0, 0), b"")
    return block + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, the length counting its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
