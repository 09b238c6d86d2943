"""Compressed streams: told by their first bytes, bounded, and whole or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from sandboxd.errors import BadRequest, HostLacks
from sandboxd.images.compression import Decompressed

PLAIN = b"".join(b"line %d\n" % number for number in range(50_000))
_ZSTD = next(
    (name for name in ("compression.zstd", "backports.zstd") if find_spec(name.partition(".")[0])),
    "",
)

FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


class Dripping:
    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._step))


def _all(data: bytes, step: int = 1 << 20, size: int = 1 << 20) -> bytes:
    stream = Decompressed(Dripping(data, step))
    pieces = []
    while piece := stream.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    assert stream.read(size) == b""
    return b"".join(pieces)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_every_format_and_piece_size(name: str, step: int) -> None:
    plain = PLAIN if step > 7 else PLAIN[:20_000]
    assert _all(FORMATS[name](plain), step) == plain


def test_what_is_not_compressed_passes_through() -> None:
    assert _all(PLAIN, 1000, 333) == PLAIN
    assert _all(b"") == b""
    assert _all(b"abc") == b"abc"


@pytest.mark.parametrize("name", FORMATS)
def test_several_members_and_zero_padding_are_one_stream(name: str) -> None:
    one = FORMATS[name](b"one ")
    assert _all(one + FORMATS[name](b"two") + b"\0" * 1000) == b"one two"
    assert _all(one + b"\0" * 5 + FORMATS[name](b"two"), step=3) == b"one two"


@pytest.mark.parametrize("name", FORMATS)
def test_cut_or_damaged_data_is_refused(name: str) -> None:
    data = FORMATS[name](PLAIN)
    for cut in (len(data) // 2, len(data) - 1, 12):
        with pytest.raises(BadRequest, match="damaged"):
            _all(data[:cut])
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    with pytest.raises(BadRequest, match="damaged"):
        _all(bytes(damaged))


@pytest.mark.parametrize("name", FORMATS)
def test_garbage_after_the_end_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="damaged"):
        _all(FORMATS[name](b"data") + b"garbage after the end")


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_comes_in_bounded_pieces(name: str) -> None:
    stream = Decompressed(io.BytesIO(FORMATS[name](b"\0" * (16 << 20))))
    assert all(len(stream.read(1 << 16)) <= 1 << 16 for _ in range(50))


def test_an_error_of_the_stream_itself_is_not_called_damage() -> None:
    class Broken:
        turn = 0

        def read(self, size: int, /) -> bytes:
            self.turn += 1
            if self.turn > 1:
                raise ConnectionResetError("peer")
            return gzip.compress(PLAIN)[:1000]

    stream = Decompressed(Broken())
    with pytest.raises(ConnectionResetError):
        _ = [stream.read(1 << 20) for _ in range(100)]


@pytest.mark.skipif(bool(_ZSTD), reason="this Python has zstd")
def test_zstd_without_a_module_for_it_says_what_to_install() -> None:
    with pytest.raises(HostLacks, match=r"pip install backports\.zstd"):
        _all(b"\x28\xb5\x2f\xfd" + b"\0" * 20)
