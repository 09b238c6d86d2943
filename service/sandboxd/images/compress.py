"""A layer as the compressed blob that registries and archives carry.

gzip by ISA-L (RFC 1952, no name, no time) or zstd, each a stream of its own in one pass: one thread
reads the tree and hashes the archive, another compresses and hashes the blob. The same layer gives
the same blob on every machine with the same version of the library. What was made is remembered by
diffID; the blob itself is a cache that the collector may drop.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import queue
import threading
from collections.abc import Callable
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, Final, Protocol

from sandboxd.errors import BadRequest, HostLacks, NotFound, SandboxError
from sandboxd.images.compressed import CompressedLayers
from sandboxd.images.fast_zlib import gzip_compressor
from sandboxd.images.layer_export import export_layer
from sandboxd.images.registry.manifests import Descriptor
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store

GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_ZSTD_LEVEL: Final = 3
_AHEAD: Final = 4
"""Pieces of up to 1 MiB that may wait for the compressing thread."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Kind(Protocol):
    def __call__(self) -> _Compressor: ...


def compressed_layer(
    store: Store, idmap: IdMap, diff_id: str, kind: str = "gzip", *, pin: bool = False
) -> Descriptor:
    """The layer's blob in `store.blobs`, made where it is missing; `kind` is gzip or zstd.

    With `pin` the blob stays until the caller calls `store.release_pin` with its digest; without,
    the next collection may take it. Blocks; single flight. Raises BadRequest for another kind,
    NotFound for an unknown layer, HostLacks, NoSpace.
    """
    if kind not in _KINDS:
        raise BadRequest(f"compression {kind!r}", "gzip and zstd are known")
    media_types, new = _KINDS[kind]
    with store.lock(f"compress {diff_id}"):
        for known in CompressedLayers(store).known(diff_id):
            if known.media_type in media_types and _held(store, known, pin):
                return known
        return _made(store, idmap, diff_id, media_types[0], new(), pin)


def _held(store: Store, known: Descriptor, pin: bool) -> bool:
    """Whether the blob is here; it is pinned first, so that it stays."""
    store.hold_pin(known.digest)
    there = False
    try:
        there = store.blobs.stat(known.digest).size == known.size
    except NotFound:
        pass
    finally:
        if not (there and pin):
            store.release_pin(known.digest)
    return there


def _made(
    store: Store, idmap: IdMap, diff_id: str, media_type: str, compressor: _Compressor, pin: bool
) -> Descriptor:
    with store.staging("compress") as staged:
        path = staged / "blob"
        digest, size = _written(store, idmap, diff_id, compressor, path)
        found = Descriptor(media_type, digest, size)
        store.hold_pin(digest)
        try:
            store.blobs.adopt(path, digest)
            CompressedLayers(store).record(diff_id, found)
        except BaseException:
            store.release_pin(digest)
            raise
        if not pin:
            store.release_pin(digest)
    return found


def _written(
    store: Store, idmap: IdMap, diff_id: str, compressor: _Compressor, path: Path
) -> tuple[str, int]:
    try:
        with open(path, "xb", buffering=0) as file:
            written = _HashingWriter(file)
            with _InThread(compressor, written.write) as sink:
                export_layer(store, idmap, diff_id, sink)
    except OSError as error:
        raise SandboxError.from_os("write a compressed layer", error) from error
    return written.digest, written.size


class _HashingWriter:
    def __init__(self, file: FileIO) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _InThread:
    """A sink that compresses in a thread of its own; leaving the block waits for it.

    Raises what the thread raised.
    """

    def __init__(self, compressor: _Compressor, write: Callable[[bytes], object]) -> None:
        self._compressor, self._write = compressor, write
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="compress", daemon=True)

    def __enter__(self) -> Callable[[bytes | memoryview], object]:
        self._thread.start()
        return self._put

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _put(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(bytes(data))

    def _run(self) -> None:
        try:
            while (data := self._queue.get()) is not None:
                self._hand_on(self._compressor.compress(data))
            self._hand_on(self._compressor.flush())
        except BaseException as error:
            self._error = error
            while self._queue.get() is not None:
                continue

    def _hand_on(self, data: bytes) -> None:
        if data:
            self._write(data)


def _gzip() -> _Compressor:
    compressor: _Compressor = gzip_compressor()
    return compressor


def _zstd() -> _Compressor:
    module = _zstd_module()
    if module is None:
        mend = "pip install backports.zstd in the service's environment (Python 3.14 has it)"
        raise HostLacks("compress with zstd", "this Python has no module for it", mend)
    compressor: _Compressor = module.ZstdCompressor(level=_ZSTD_LEVEL)
    return compressor


@cache
def _zstd_module() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_KINDS: Final[dict[str, tuple[tuple[str, ...], _Kind]]] = {
    "gzip": ((GZIP, DOCKER_GZIP), _gzip),
    "zstd": ((ZSTD,), _zstd),
}


def workers(layers: int) -> int:
    """How many layers to compress at once: each keeps a processor and a part of another busy."""
    return max(1, min(os.cpu_count() or 1, layers))
