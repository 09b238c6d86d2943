"""Whatever is discarded is gone at once and deleted later, whatever its shape."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandboxd.linux import idmap
from sandboxd.store import Store


def _closed(store: Store) -> list[str]:
    store.close(patience=100)
    return os.listdir(store.root / "trash")


def test_trees_files_and_links_are_deleted_and_links_targets_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("alive")
    tree = store.root / "volumes/tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/file").write_text("x")
    (tree / "a/link").symlink_to(canary)
    (tree / "a/dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    link = store.root / "volumes/link"
    link.symlink_to(canary)
    for path in (tree, link, store.root / "volumes/missing"):
        store.discard(path)
        assert not path.exists()
    assert _closed(store) == []
    assert (canary / "file").read_text() == "alive"


def test_permission_bits_do_not_stop_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    tree = store.root / "volumes/tree"
    for mode in (0o000, 0o500, 0o400, 0o100):
        directory = tree / f"{mode:o}"
        (directory / "inner").mkdir(parents=True)
        (directory / "inner/file").write_text("x")
        (directory / "inner").chmod(mode)
        directory.chmod(mode)
    tree.chmod(0)
    store.discard(tree)
    assert _closed(store) == []


def test_depth_does_not_stop_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    top = store.root / "volumes/deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    store.discard(top)
    assert _closed(store) == []


@pytest.mark.needs_subids
@pytest.mark.outer
def test_files_of_other_users_of_the_map_are_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    tree = store.root / "volumes/tree"
    (tree / "private").mkdir(parents=True)
    (tree / "private/file").write_text("x")
    os.mknod(tree / "whiteout", 0o020000, os.makedev(0, 0))
    for path in (tree / "private/file", tree / "private", tree):
        os.chmod(path, 0o500)
        os.chown(path, 70, 70)
    store.discard(tree)
    assert _closed(store) == []


def test_impatience_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    tree = store.root / "volumes/tree"
    tree.mkdir()
    for number in range(200):
        (tree / f"{number}").touch()
    store.discard(tree)
    store.close(patience=0)
    assert not tree.exists()
    assert _closed(Store(store.root, idmap.choose())) == []


def test_what_a_crash_left_in_the_trash_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    first = Store(tmp_path / "root", idmap.choose())
    first.close()
    (first.root / "trash/old/deeper").mkdir(parents=True)
    assert _closed(Store(tmp_path / "root", idmap.choose())) == []


def test_nothing_is_deleted_while_something_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", idmap.choose())
    trash = store.root / "trash"
    with store.staging("image"):
        store.discard(store.root / "volumes")
        time.sleep(0.04)  # more than enough for an empty directory
        waiting = os.listdir(trash)
    while os.listdir(trash):
        os.sched_yield()
    assert len(waiting) == 1
    assert _closed(store) == []
