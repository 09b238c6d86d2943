"""Sealing: by rename, under the digest of the content; stacking; what is in use stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Conflict, NoSuchSnapshot
from sandboxd.linux import idmap
from sandboxd.store import Snapshot, Store, Tree, trees
from sandboxd.store.digests import digest_of

K1, K2, K3 = (f"sha256:{digit * 64}" for digit in "123")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root", idmap.choose())


def _seal(store: Store, key: str, base: str | None = None, **files: str) -> Snapshot:
    with store.staging("test") as staged:
        tree = staged / "tree"
        tree.mkdir()
        for name, content in files.items():
            (tree / name).write_text(content)
        return store.snapshots.seal(key, tree, base=base, spec={"files": sorted(files)})


def _trees(store: Store) -> list[str]:
    return sorted(os.listdir(store.root / "snapshots"))


def test_a_sealed_tree_is_found_again_after_a_restart(store: Store) -> None:
    sealed = _seal(store, K1, a="1", b="22")
    assert (sealed.size, sealed.files, sealed.spec) == (3, 2, {"files": ["a", "b"]})
    assert (sealed.layers[0] / "b").read_text() == "22"
    store.close()
    again = Store(store.root, idmap.choose())
    assert again.snapshots.get(K1) == sealed
    assert list(again.snapshots.list()) == [sealed]


def test_sealing_renames_and_copies_nothing(store: Store) -> None:
    with store.staging("test") as staged:
        (staged / "tree").mkdir()
        (staged / "tree/file").write_text("x")
        inode = (staged / "tree/file").stat().st_ino
        sealed = store.snapshots.seal(K1, staged / "tree", base=None, spec={})
    assert (sealed.layers[0] / "file").stat().st_ino == inode


def test_the_first_seal_of_a_key_stays(store: Store) -> None:
    first, second = _seal(store, K1, a="1"), _seal(store, K1, a="other")
    assert second == first
    assert (first.layers[0] / "a").read_text() == "1"


def test_two_keys_of_one_content_share_a_tree_until_the_last_is_deleted(store: Store) -> None:
    first, second = _seal(store, K1, a="1"), _seal(store, K2, a="1")
    assert first.layers == second.layers
    assert first.digest == second.digest
    store.snapshots.delete(K1)
    assert second.layers[0].is_dir()
    store.snapshots.delete(K2)
    assert _trees(store) == []


def test_a_snapshot_over_another_is_a_stack(store: Store) -> None:
    base, top = _seal(store, K1, a="1"), _seal(store, K2, K1, b="22")
    assert top.layers[1:] == base.layers
    assert (top.size, top.files) == (3, 2)
    assert top.digest not in (base.digest, f"sha256:{top.layers[0].name}")
    store.snapshots.delete(K1)
    assert all(layer.is_dir() for layer in top.layers)
    store.snapshots.delete(K2)
    assert _trees(store) == []


def test_an_unknown_base_or_a_malformed_key_is_refused_and_the_tree_left(store: Store) -> None:
    with pytest.raises(NoSuchSnapshot, match=K3):
        _seal(store, K1, K3, a="1")
    with pytest.raises(BadRequest, match="invalid digest"):
        _seal(store, "sha256:../../x", a="1")
    assert store.snapshots.get(K1) is None
    assert _trees(store) == []


def test_deleting_what_is_not_there_or_in_use_is_refused(store: Store) -> None:
    with pytest.raises(NoSuchSnapshot, match=K1):
        store.snapshots.delete(K1)
    _seal(store, K1, a="1")
    with store.pin(K1), pytest.raises(Conflict, match="in use"):
        store.snapshots.delete(K1)
    store.database.volumes.put("data", {"snapshot": K1})
    with pytest.raises(Conflict, match="data"):
        store.snapshots.delete(K1)
    store.database.volumes.delete("data")
    store.snapshots.delete(K1)
    assert store.snapshots.get(K1) is None


def test_a_snapshot_that_lost_a_tree_is_built_again(store: Store) -> None:
    sealed = _seal(store, K1, a="1")
    store.close()
    shutil.rmtree(sealed.layers[0])
    again = Store(store.root, idmap.choose())
    assert again.snapshots.get(K1) is None
    assert _seal(again, K1, a="1").layers[0].is_dir()


def test_when_it_was_last_used_survives_a_restart(store: Store) -> None:
    sealed = _seal(store, K1, a="1")
    _seal(store, K2, a="2")
    store.snapshots.touch(K1)
    store.close()
    again = Store(store.root, idmap.choose())
    moment = sealed.created + 0.000_001
    assert K1 not in {each.key for each in again.snapshots.unused_since(moment)}
    assert {each.key for each in again.snapshots.unused_since(moment + 1e6)} == {K1, K2}


def test_a_stack_from_elsewhere_is_adopted_by_renaming(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    below, top = _staged(store, "below"), _staged(store, "top")
    first = store.snapshots.adopt(digest_of(b"one"), [below], created=5.0, spec={"a": 1})
    assert (first.digest, first.created, first.spec) == (below.digest, 5.0, {"a": 1})
    assert not below.staged.exists()  # type: ignore[union-attr]
    stack = [top, Tree(below.digest, below.size, below.files, None)]
    second = store.snapshots.adopt(digest_of(b"two"), stack, created=6.0, spec={})
    assert second.layers == (store.snapshots.tree_path(top.digest), first.layers[0])
    assert (second.size, second.files) == (first.size + top.size, first.files + top.files)
    assert second.digest not in (top.digest, below.digest)
    assert _opened(tmp_path).snapshots.get(second.key) == second


def test_the_first_snapshot_of_a_key_stays_and_a_missing_tree_is_noticed(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    key = digest_of(b"key")
    first = store.snapshots.adopt(key, [_staged(store, "a")], created=5.0, spec={})
    assert store.snapshots.adopt(key, [_staged(store, "b")], created=6.0, spec={}) == first
    gone = Tree(digest_of(b"gone"), 1, 1, None)
    with pytest.raises(NoSuchSnapshot):
        store.snapshots.adopt(digest_of(b"other"), [gone], created=5.0, spec={})
    assert [each.key for each in store.snapshots.list()] == [key]


def test_one_that_was_adopted_counts_as_used_now(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    key = digest_of(b"old")
    store.snapshots.adopt(key, [_staged(store, "a")], created=5.0, spec={})
    assert store.collect(unused_for=3600).snapshots == ()


def _opened(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", idmap.choose())


def _staged(store: Store, content: str) -> Tree:
    tree = store.root / "staging" / f"tree-{content}"
    tree.mkdir()
    (tree / "file").write_text(content)
    fd = trees.open_tree(tree)
    try:
        measured = trees.measure(fd)
    finally:
        os.close(fd)
    return Tree(measured.digest, measured.size, measured.files, tree)
