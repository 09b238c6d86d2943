"""The reader of tar archives against the standard library's writer, and against liars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.errors import BadRequest
from sandboxd.images.tar import Kind, Limits, Member, TarReader

MakeTar = Callable[..., bytes]


class Dripping:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._step))


def _read(data: bytes, step: int = 1 << 20) -> list[tuple[Member, bytes]]:
    archive = TarReader(Dripping(data, step))
    return [(member, b"".join(archive.data())) for member in archive]


def _blocks(*parts: bytes) -> bytes:
    return b"".join(part + b"\0" * (-len(part) % 512) for part in parts) + b"\0" * 1024


def _header(
    name: bytes, size: bytes = b"0", kind: bytes = b"0", checksum: int | None = None
) -> bytes:
    """A ustar header by hand; the checksum is right unless given."""
    header = bytearray(512)
    header[0:100] = name.ljust(100, b"\0")
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = size.rjust(11, b"0") + b"\0" if len(size) < 12 else size
    header[136:148] = b"00000000000\0"
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % (sum(header) if checksum is None else checksum)
    return bytes(header)


_name = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=150
).filter(lambda name: name.strip(".") and not name.startswith("./"))


@given(
    st.lists(
        st.tuples(
            st.lists(_name, min_size=1, max_size=3).map("/".join),
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
            st.integers(0, 2**31),
            st.integers(0, 2**33),
        ),
        max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([1, 100, 511, 512, 1 << 20]),
)
def test_what_the_standard_library_writes_is_read_back(
    members: list[tuple[str, bytes, int, int, int]], format: int, step: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data, mode, owner, time in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid, info.mtime = (
                len(data),
                mode,
                owner,
                owner,
                time,
            )
            archive.addfile(info, io.BytesIO(data))
    found = _read(buffer.getvalue(), step)
    assert [
        (member.name, data, member.mode, member.uid, member.gid, member.mtime)
        for member, data in found
    ] == [
        (name, data, mode, owner, owner, time * 10**9) for name, data, mode, owner, time in members
    ]


def test_every_kind_is_told(tar: MakeTar) -> None:
    kinds = [
        tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE,
        tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
    ]  # fmt: skip
    data = tar(*({"name": "x", "type": kind, "linkname": "t"} for kind in kinds))
    assert [member.kind for member, _ in _read(data)] == [
        Kind.FILE, Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARD_LINK,
        Kind.CHARACTER, Kind.BLOCK_DEVICE, Kind.FIFO,
    ]  # fmt: skip
    assert _read(_blocks(_header(b"v7dir/")))[0][0].kind is Kind.DIRECTORY
    assert _read(_blocks(_header(b"odd", kind=b"V")))[0][0].kind is Kind.OTHER


def test_pax_headers_override(tar: MakeTar) -> None:
    pax = {
        "path": "long/" + "n" * 300, "linkpath": "target", "uid": "4000000000", "gid": "7",
        "mtime": "1700000000.123456789", "SCHILY.xattr.user.note": "v",
    }  # fmt: skip
    (member, data), *_ = _read(tar({"name": "x", "data": b"d", "pax": pax}))
    assert (member.name, member.target, data) == (pax["path"], "target", b"d")
    assert (member.uid, member.gid) == (4_000_000_000, 7)
    assert member.mtime == 1_700_000_000_123_456_789
    assert member.xattrs == {"user.note": b"v"}


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    member, _ = _read(_blocks(_header(b"caf\xe9")))[0]
    assert member.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_ustar_prefix_is_put_in_front(tar: MakeTar) -> None:
    name = "d" * 90 + "/" + "n" * 90
    assert _read(tar({"name": name}, format=tarfile.USTAR_FORMAT))[0][0].name == name


def test_times_are_clamped_to_what_file_systems_store(tar: MakeTar) -> None:
    for text, expected in (("-5", 0), ("9" * 30, 1 << 34), ("1.5", None)):
        member, _ = _read(tar({"name": "x", "pax": {"mtime": text}}))[0]
        assert member.mtime == (1_500_000_000 if expected is None else expected * 10**9)


def test_no_members_and_no_end_marker_are_both_an_empty_archive() -> None:
    assert _read(b"") == []
    assert _read(b"\0" * 1024) == []
    assert _read(_header(b"x"))[0][0].name == "x"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"not an archive" * 100, "octal|checksum"),
        (_blocks(_header(b"x", checksum=1)), "checksum"),
        (_header(b"x", b"17") + b"short", "ends too early"),
        (_header(b"x")[:300], "ends too early"),
        (_blocks(_header(b"x")) + b"trailing", "data after its end"),
        (b"\0" * 512 + _header(b"x"), "data after its end"),
        (_blocks(_header(b"x", b"\xff" * 12)), "negative or oversized"),
        (_blocks(_header(b"x", b"12x")), "octal"),
        (_blocks(_header(b"x", b"77777777777")), "ends too early"),
        (_blocks(_header(b"x", b"\x80" + b"\x7f" * 11)), "bytes of data"),
        (_blocks(_header(b"p", b"77777777", b"x")), "extended header"),
        (_blocks(_header(b"p", b"77777777", b"L")), "extended header"),
        (_blocks(_header(b"p", b"14", b"x"), b"99999 path=x\n"), "pax"),
        (_blocks(_header(b"p", b"14", b"x"), b"garbage here"), "pax"),
        (_blocks(_header(b"p", b"14", b"x"), b"0 path=x\n\0\0\0"), "pax"),
        (_blocks(_header(b"p", b"13", b"x"), b"11 uid=-1x\n", _header(b"x")), "not a number"),
        (_blocks(_header(b"p", b"22", b"x"), b"18 mtime=tomorrow\n", _header(b"x")), "not a time"),
        (_blocks(_header(b"p", b"15", b"x"), b"13 path=a\0b\n\0", _header(b"x")), "NUL|pax"),
        (_blocks(_header(b"p", b"26", b"x"), b"22 GNU.sparse.major=1\n", _header(b"x")), "sparse"),
        (_blocks(_header(b"x", kind=b"S")), "sparse"),
        (_blocks(_header(b"p", b"11610", b"L"), b"n" * 5000, _header(b"x")), "longer than"),
    ],
)  # fmt: skip
def test_liars_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        _read(data)


def test_members_and_bytes_are_bounded(tar: MakeTar) -> None:
    data = tar(*({"name": f"{number}", "data": b"x" * 100} for number in range(20)))
    for limits, why in ((Limits(members=19), "members"), (Limits(size=1999), "bytes of data")):
        with pytest.raises(BadRequest, match=why):
            list(TarReader(io.BytesIO(data), limits))
    assert len(list(TarReader(io.BytesIO(data), Limits(2000, 20)))) == 20


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        _read(data)
    except BadRequest:
        pass


@given(st.integers(0, 511), st.integers(0, 255), st.integers(0, 6000))
def test_a_damaged_or_cut_archive_is_read_or_refused(at: int, value: int, length: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("näme" * 40)
        info.size = 700
        archive.addfile(info, io.BytesIO(b"d" * 700))
    data = bytearray(buffer.getvalue())
    data[at] = value
    try:
        _read(bytes(data[:length]))
    except BadRequest:
        pass
