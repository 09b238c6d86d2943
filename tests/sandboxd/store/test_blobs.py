"""Blobs appear complete and verified, or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, NotFound
from sandboxd.linux import idmap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of, hex_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root", idmap.choose())


def test_what_was_put_can_be_opened_and_is_named_by_its_digest(store: Store) -> None:
    data = b"x" * 3_000_000
    blob = store.blobs.put(io.BytesIO(data))
    assert (blob.digest, blob.size) == (digest_of(data), len(data))
    with store.blobs.open(blob.digest) as file:
        assert file.read() == data
    assert store.blobs.stat(blob.digest) == blob


def test_a_blob_put_twice_is_there_once(store: Store) -> None:
    first, second = store.blobs.put(io.BytesIO(b"a")), store.blobs.put(io.BytesIO(b"a"))
    assert first == second
    assert len(list((store.root / "blobs/sha256").iterdir())) == 1


@pytest.mark.parametrize(
    ("digest", "size"),
    [(digest_of(b"other"), None), (None, 4), (None, 6), (digest_of(b"other"), 5)],
)
def test_a_broken_promise_leaves_nothing(
    store: Store, digest: str | None, size: int | None
) -> None:
    with pytest.raises(BadRequest, match="promised"):
        store.blobs.put(io.BytesIO(b"hello"), digest=digest, size=size)
    assert list((store.root / "blobs/sha256").iterdir()) == []
    assert list((store.root / "staging").iterdir()) == []


def test_an_endless_stream_is_cut_at_the_promised_size(store: Store) -> None:
    class Endless:
        taken = 0

        def read(self, size: int, /) -> bytes:
            self.taken += size
            return b"\0" * size

    stream = Endless()
    with pytest.raises(BadRequest, match="longer"):
        store.blobs.put(stream, size=5_000_000)
    assert stream.taken < 8_000_000


def test_a_stream_that_breaks_leaves_nothing(store: Store) -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise ConnectionResetError("peer")

    with pytest.raises(Exception, match="peer"):
        store.blobs.put(Broken())
    assert list((store.root / "staging").iterdir()) == []


def test_a_deleted_blob_is_not_found(store: Store) -> None:
    blob = store.blobs.put(io.BytesIO(b"a"))
    store.blobs.delete(blob.digest)
    store.blobs.delete(blob.digest)
    with pytest.raises(NotFound, match=blob.digest):
        store.blobs.open(blob.digest)
    with pytest.raises(NotFound):
        store.blobs.stat(blob.digest)


@pytest.mark.parametrize(
    "name",
    [
        "sha256:../../etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "/etc/passwd",
        "",
    ],
)
def test_only_digests_become_paths(store: Store, name: str) -> None:
    for use in (store.blobs.open, store.blobs.stat, store.blobs.delete, hex_of):
        with pytest.raises(BadRequest, match="invalid digest"):
            use(name)
