"""Collection takes what nothing refers to and never what anything uses."""

from __future__ import annotations

import io
import os
import random
import threading
from pathlib import Path

import pytest

from sandboxd.linux import idmap
from sandboxd.store import Store
from sandboxd.store.digests import digest_of

K1, K2 = (f"sha256:{digit * 64}" for digit in "12")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root", idmap.choose())


def _publish(store: Store, content: str) -> str:
    diff_id = digest_of(content.encode())
    with store.staging("layer") as staged:
        tree = staged / "tree"
        tree.mkdir()
        (tree / "file").write_text(content)
        store.layers.publish(diff_id, tree, {"size": len(content)})
    return diff_id


def _refer(store: Store, image: str, *layers: str, blobs: tuple[str, ...] = ()) -> None:
    store.database.images.put(image, {"layers": list(layers), "blobs": list(blobs)})


def _seal(store: Store, key: str, content: str) -> None:
    with store.staging("test") as staged:
        (staged / "tree").mkdir()
        (staged / "tree/a").write_text(content)
        store.snapshots.seal(key, staged / "tree", base=None, spec={})


def test_only_what_nothing_refers_to_goes(store: Store) -> None:
    kept, held, used, loose = (_publish(store, name) for name in ("kept", "held", "used", "loose"))
    blob, config = store.blobs.put(io.BytesIO(b"loose")), store.blobs.put(io.BytesIO(b"config"))
    _refer(store, "image", kept, blobs=(config.digest,))
    with store.pin(held):
        done = store.collect([used])
    assert (done.layers, done.blobs, done.snapshots) == ((loose,), (blob.digest,), ())
    assert done.size == len("loose") * 2
    assert [store.layers.has(each) for each in (kept, held, used, loose)] == [True] * 3 + [False]
    assert set(store.collect().layers) == {held, used}


def test_snapshots_stay_unless_their_age_is_asked_about(store: Store) -> None:
    _seal(store, K1, "1")
    _seal(store, K2, "2")
    assert store.collect().snapshots == ()
    assert store.collect(unused_for=3600).snapshots == ()
    store.database.volumes.put("data", {"snapshot": K1})
    assert store.collect([], unused_for=-1).snapshots == (K2,)
    store.database.volumes.delete("data")
    with store.pin(K1):
        assert store.collect(unused_for=-1).snapshots == ()
    assert store.collect([K1], unused_for=-1).snapshots == ()
    assert store.collect(unused_for=-1).snapshots == (K1,)
    assert os.listdir(store.root / "snapshots") == []


def test_it_leaves_alone_what_another_process_is_publishing(store: Store) -> None:
    loose = _publish(store, "loose")
    locked, lock = os.pipe()
    release, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done)
        with store.lock(loose):
            os.write(lock, b"x")
            os.read(release, 1)
        os._exit(0)
    os.read(locked, 1)
    assert store.collect().layers == ()
    os.close(done)
    os.waitpid(child, 0)
    assert store.collect().layers == (loose,)


def test_nothing_in_use_is_taken_while_images_come_and_go(store: Store) -> None:
    """Threads take in and drop images that share layers, as another thread collects."""
    failures: list[str] = []
    stop = threading.Event()

    def take_in_and_drop(number: int) -> None:
        chooser = random.Random(number)
        for turn in range(40):
            contents = [f"layer {chooser.randrange(6)}" for _ in range(2)]
            digests = [digest_of(content.encode()) for content in contents]
            image = f"{number}-{turn}"
            with store.pin(*digests):
                for content, digest in zip(contents, digests, strict=True):
                    if not store.layers.has(digest):
                        _publish(store, content)
                _refer(store, image, *digests)
            for content, digest in zip(contents, digests, strict=True):
                try:
                    found = (store.layers.path(digest) / "file").read_text()
                except OSError as error:
                    failures.append(f"{image}: {error}")
                else:
                    assert found == content
            store.database.images.delete(image)

    def collect() -> None:
        while not stop.is_set():
            store.collect()

    users = [threading.Thread(target=take_in_and_drop, args=(number,)) for number in range(3)]
    collector = threading.Thread(target=collect)
    for thread in (*users, collector):
        thread.start()
    for thread in users:
        thread.join()
    stop.set()
    collector.join()
    assert failures == []
    store.collect()
    assert os.listdir(store.root / "layers/sha256") == []
