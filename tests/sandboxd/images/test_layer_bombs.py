"""Layers of a few kilobytes or megabytes that ask for hours, or for all memory: bounded, each.

What is not bounded never comes to an end here: the run's own timeout is the assertion.
"""

from __future__ import annotations

import gzip
import io
import resource
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.tar import Limits
from sandboxd.images.unpack import unpack
from sandboxd.linux import idmap, mount

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]

_MEMORY = 400 << 20
"""Bytes that unpacking may add to this process's address space, Python's own reserves included."""


class Endless(io.RawIOBase):
    """A stream of pieces, as long as somebody reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """More is refused, so that a bomb ends in a MemoryError and not in the machine's end."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _member(name: str, kind: bytes, data: bytes = b"", link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, 0o755
    header = info.tobuf(tarfile.GNU_FORMAT)
    return header + data + bytes(-len(data) % 512)


def _refused(data: bytes | Endless, place: Path, why: str, limits: Limits | None = None) -> None:
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    with pytest.raises(BadRequest, match=why):
        unpack(stream, place, idmap.choose(), limits)


def test_links_that_lead_to_each_other_many_times(tmp_path: Path) -> None:
    """Each level is cheap; followed as written it would be 400 to the power of 30 steps."""
    width, depth = 450, 30
    data = b"".join(_member(f"0{at:03}", tarfile.SYMTYPE, link="d") for at in range(width))
    for level in range(1, depth):
        below = "/../".join(f"{(level - 1) % 10}{at:03}" for at in range(width))[:4000]
        target = below.rpartition("/../")[0]
        longer = _member("././@LongLink", b"K", target.encode() + b"\0")
        for at in range(0, width, 90):
            data += longer + _member(f"{level % 10}{at:03}", tarfile.SYMTYPE, link="x")
    data += _member("d/x", tarfile.REGTYPE) + _member(f"{(depth - 1) % 10}000/x", tarfile.REGTYPE)
    _refused(gzip.compress(data), tmp_path, "symbolic links|file where a directory")


def test_a_pax_header_of_records_without_content(tmp_path: Path) -> None:
    """A megabyte of them: quadratic, where the rest is copied for each."""
    records = b"5 a=\n" * (1 << 17) + b"6 b=1\n"
    data = _member("pax", b"x", records) + _member("f", tarfile.REGTYPE) + bytes(1024)
    layer = unpack(io.BytesIO(data * 1), tmp_path, idmap.choose())
    assert (layer.tree / "f").is_file()


def test_extended_headers_for_one_member_without_end(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(1 << 30):
            yield _member("pax", b"x", b"%07d %06d=%s\n" % (60_000, number, b"v" * 59_984))

    _refused(Endless(pieces()), tmp_path, "extended header|malformed pax")


def test_global_headers_without_end(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(1 << 30):
            yield _member("pax", b"g", b"15 a%08d=b\n" % number)

    _refused(Endless(pieces()), tmp_path, "global headers")


def test_directories_that_carry_much(tmp_path: Path) -> None:
    """Their attributes are set at the end, so that they have to be kept until then."""
    mount.mount("none", str(tmp_path), "tmpfs")
    record = b"SCHILY.xattr.user.a=" + b"v" * 900_000 + b"\n"
    length = len(record) + 7
    header = _member("pax", b"x", b"%d %s" % (length, record))

    def pieces() -> Iterator[bytes]:
        for number in range(1 << 30):
            yield header + _member(f"d{number}", tarfile.DIRTYPE)

    _refused(Endless(pieces()), tmp_path, "more than 256 MiB")


def test_zeros_without_end(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield _member("f", tarfile.REGTYPE)
        while True:
            yield bytes(1 << 20)

    _refused(Endless(pieces()), tmp_path, "no data", Limits(members=1000))


def test_a_member_of_unknown_kind_that_is_large(tmp_path: Path) -> None:
    """Its data is kept for the layer's archive, on disk and not in memory."""
    size = 600 << 20
    info = tarfile.TarInfo("odd")
    info.type, info.size = b"V", size

    def pieces() -> Iterator[bytes]:
        yield info.tobuf(tarfile.GNU_FORMAT)
        for _ in range(size >> 20):
            yield bytes(1 << 20)
        yield bytes(1024)

    layer = unpack(Endless(pieces()), tmp_path, idmap.choose())
    assert layer.recipe.stat().st_size < 16 << 20


def test_directories_that_are_replaced_again_and_again(tmp_path: Path) -> None:
    """What is known of a directory is found where it lies, not among all that are known."""
    mount.mount("none", str(tmp_path), "tmpfs")  # disks take a millisecond for each directory
    data = b"".join(_member(f"d{number}", tarfile.DIRTYPE) for number in range(8_000))
    data += (_member("x", tarfile.DIRTYPE) + _member("x", tarfile.REGTYPE)) * 2_000
    layer = unpack(io.BytesIO(data), tmp_path, idmap.choose())
    assert (layer.tree / "x").is_file()


def test_a_link_that_asks_for_thousands_of_directories(tmp_path: Path) -> None:
    target = "/".join(["../" + "d" * 3] * 500)
    data = _member("././@LongLink", b"K", target.encode() + b"\0")
    data += _member("l", tarfile.SYMTYPE, link="x") + _member("l/f", tarfile.REGTYPE)
    layer = unpack(io.BytesIO(data), tmp_path, idmap.choose())
    assert sorted(path.name for path in layer.tree.iterdir()) == ["ddd", "l"]


@pytest.mark.parametrize("level", [1, 9])
def test_a_gzip_bomb_is_bounded_by_its_size(tmp_path: Path, level: int) -> None:
    block = gzip.compress(bytes(64 << 20), level)
    info = tarfile.TarInfo("zeros")
    info.size = 64 << 30
    head = gzip.compress(info.tobuf(tarfile.GNU_FORMAT))

    def pieces() -> Iterator[bytes]:
        yield head
        while True:
            yield block

    _refused(Endless(pieces()), tmp_path, "bytes of data", Limits(size=1 << 30))
