"""Decompression while streaming, the format told by its first bytes, output bounded.

gzip (RFC 1952, any number of members, zero padding after them), bzip2, xz and zstd (RFC 8878, with
skippable frames). No call ever returns more than it was asked for, so that a few bytes of input
cannot fill the memory.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

from sandboxd.errors import BadRequest, HostLacks
from sandboxd.store.digests import Reader

BLOCK: Final = 1 << 20
_ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")
_ERRORS: Final = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
_DAMAGED: Final = "compressed data is damaged"
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)


class _Decoder(Protocol):
    """The interface that bz2, lzma and zstd decoders of the standard library share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZlibGzip:
    """One gzip member with that same interface, for machines that ISA-L has no wheel for."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


class Decompressed:
    """A reader of the decompressed stream; one that is not compressed passes through.

    Raises BadRequest for damaged or truncated data, and for bytes after the end other than zeros.
    """

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._pending = _head(stream)
        self._new = _decoder_for(self._pending)
        self._decoder = self._new() if self._new else None

    def read(self, size: int, /) -> bytes:
        if self._new is None:
            return self._input(size)
        while self._decoder is not None:
            if self._decoder.eof:
                self._decoder = self._next_member(self._decoder.unused_data)
            elif out := self._decompress(self._decoder, size):
                return out
        return b""

    def _decompress(self, decoder: _Decoder, size: int) -> bytes:
        data = b""
        if decoder.needs_input and not (data := self._input(BLOCK)):
            raise BadRequest(_DAMAGED, "it ends too early")
        try:
            return decoder.decompress(data, size)
        except (*_ERRORS, _igzip_error(), _zstd_error()) as error:
            raise BadRequest(_DAMAGED, str(error)) from error

    def _next_member(self, rest: bytes) -> _Decoder | None:
        """The decoder of the member that follows, None where only zeros do."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._stream.read(BLOCK)
            if not rest:
                return None
        self._pending = rest
        return self._new() if self._new else None

    def _input(self, size: int) -> bytes:
        if self._pending:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data
        return self._stream.read(size)


def _head(stream: Reader) -> bytes:
    """The first bytes, as many as the longest magic number needs."""
    head = b""
    while len(head) < 6 and (more := stream.read(BLOCK)):
        head += more
    return head


def _decoder_for(head: bytes) -> Callable[[], _Decoder] | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _new_gzip
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor
    if head.startswith(b"\x28\xb5\x2f\xfd") or int.from_bytes(head[:4], "little") in _SKIPPABLE:
        return _new_zstd
    return None


def _new_gzip() -> _Decoder:
    """ISA-L inflates twice as fast as zlib does."""
    module = _igzip()
    if module is None:
        return _ZlibGzip()
    decoder: _Decoder = module.IgzipDecompressor(flag=module.DECOMP_GZIP)
    return decoder


def _igzip_error() -> type[Exception]:
    module = _igzip()
    return EOFError if module is None else module.IsalError


@cache
def _igzip() -> Any:
    try:
        return importlib.import_module("isal.igzip_lib")
    except ImportError:
        return None


def _new_zstd() -> _Decoder:
    module = _zstd()
    if module is None:
        mend = "pip install backports.zstd in the service's environment (Python 3.14 has it)"
        raise HostLacks("decompress zstd", "this Python has no module for it", mend)
    decoder: _Decoder = module.ZstdDecompressor()
    return decoder


def _zstd_error() -> type[Exception]:
    module = _zstd()
    return EOFError if module is None else module.ZstdError


@cache
def _zstd() -> Any:
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
