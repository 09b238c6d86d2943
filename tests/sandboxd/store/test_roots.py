"""Roots: blobs that a process beside the service keeps."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import pytest

from sandboxd.linux import idmap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of

pytestmark = pytest.mark.outer


def test_a_blob_with_a_root_outlives_a_collection_by_another_process_view(tmp_path: Path) -> None:
    service, registry = _store(tmp_path), _store(tmp_path)
    kept, loose = registry.blobs.put(BytesIO(b"kept")), registry.blobs.put(BytesIO(b"loose"))
    registry.roots.add(kept.digest, "repository a")
    assert service.collect().blobs == (loose.digest,)
    registry.roots.remove(kept.digest, "repository a")
    assert service.collect().blobs == (kept.digest,)


def test_a_root_that_comes_during_a_collection_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, registry = _store(tmp_path), _store(tmp_path)
    digest = digest_of(b"late")
    roots_read, root_added = threading.Event(), threading.Event()

    def push() -> None:
        roots_read.wait()
        with registry.lock(digest):
            registry.blobs.put(BytesIO(b"late"))
            registry.roots.add(digest, "repository a")
        root_added.set()

    seen = service.roots.all()

    def stale() -> frozenset[str]:
        roots_read.set()
        root_added.wait()
        return seen

    monkeypatch.setattr(service.roots, "all", stale)
    pusher = threading.Thread(target=push)
    pusher.start()
    assert service.collect().blobs == ()
    pusher.join()
    assert registry.blobs.stat(digest).size == 4


def test_roots_belong_to_their_holder(tmp_path: Path) -> None:
    roots = _store(tmp_path).roots
    roots.add("sha256:" + "a" * 64, "one")
    roots.add("sha256:" + "a" * 64, "two")
    roots.remove("sha256:" + "a" * 64, "one")
    assert roots.keeps("sha256:" + "a" * 64)
    assert not roots.has("sha256:" + "a" * 64, "one")
    assert list(roots.of("two")) == ["sha256:" + "a" * 64]


def test_a_store_that_opens_leaves_what_another_just_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _store(tmp_path)
    diff_id = digest_of(b"layer")
    from sandboxd.store.collection import Collector

    read = Collector._layer_rows

    def then_published(self: Collector) -> set[str]:
        rows = read(self)
        if not service.layers.has(diff_id):
            staged = tmp_path / "state" / "staging" / "t"
            staged.mkdir()
            service.layers.publish(diff_id, staged, {})
        return rows

    monkeypatch.setattr(Collector, "_layer_rows", then_published)
    _store(tmp_path)
    assert service.layers.has(diff_id)


def test_an_older_view_does_not_set_back_when_a_snapshot_was_used(tmp_path: Path) -> None:
    service = _store(tmp_path)
    tree = tmp_path / "state" / "staging" / "tree"
    tree.mkdir()
    key = digest_of(b"key")
    service.snapshots.seal(key, tree, base=None, spec={})
    registry = _store(tmp_path)
    service.snapshots.touch(key)
    service.snapshots.save_usage()
    before = service.database.snapshots.get(key)
    registry.snapshots.save_usage()
    assert service.database.snapshots.get(key) == before


def test_a_store_that_opens_while_another_works_takes_nothing_from_it(tmp_path: Path) -> None:
    service = _store(tmp_path)
    with service.staging("work") as staged:
        (staged / "file").touch()
        (tmp_path / "state" / "staging" / "gone").symlink_to("nowhere")
        _store(tmp_path)
        assert (staged / "file").exists()


def _store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", idmap.choose())
