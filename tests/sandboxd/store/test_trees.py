"""The digest of a tree's content: sensitive to what matters, blind to what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest
from sandboxd.store import trees
from sandboxd.store.trees import Content


def _measured(tree: Path) -> Content:
    fd = trees.open_tree(tree)
    try:
        return trees.measure(fd)
    finally:
        os.close(fd)


def _filled(tree: Path) -> Path:
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_text("content")
    (tree / "empty").touch()
    (tree / "link").symlink_to("dir/file")
    os.link(tree / "dir/file", tree / "twin")
    os.mkfifo(tree / "fifo")
    return tree


def test_equal_trees_have_equal_digests_whatever_their_times(tmp_path: Path) -> None:
    first, second = _filled(tmp_path / "a"), _filled(tmp_path / "b")
    os.utime(second / "dir/file", (1, 1))
    os.utime(second, (2, 2))
    assert _measured(first) == _measured(second)
    assert (_measured(first).size, _measured(first).files) == (len("content"), 6)


def _replaced(path: Path) -> Path:
    path.unlink()
    return path


_CHANGES: dict[str, Callable[[Path], object]] = {
    "data": lambda tree: (tree / "dir/file").write_text("CONTENT"),
    "mode of a file": lambda tree: (tree / "empty").chmod(0o640),
    "mode of a directory": lambda tree: (tree / "dir").chmod(0o711),
    "mode of the root": lambda tree: tree.chmod(0o711),
    "name": lambda tree: (tree / "empty").rename(tree / "other"),
    "link target": lambda tree: _replaced(tree / "link").symlink_to("empty"),
    "link becomes file": lambda tree: _replaced(tree / "link").touch(),
    "hard link becomes copy": lambda tree: _replaced(tree / "twin").write_text("content"),
    "one more": lambda tree: (tree / "dir/.hidden").touch(),
    "one less": lambda tree: (tree / "fifo").unlink(),
    "moved": lambda tree: (tree / "empty").rename(tree / "dir/empty"),
    "attribute": lambda tree: os.setxattr(tree / "empty", "user.note", b"x"),
    "opaque mark": lambda tree: os.setxattr(tree / "dir", "user.overlay.opaque", b"y"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_every_change_of_content_changes_the_digest(tmp_path: Path, change: str) -> None:
    first, second = _filled(tmp_path / "a"), _filled(tmp_path / "b")
    _CHANGES[change](second)
    assert _measured(first).digest != _measured(second).digest


def test_bookkeeping_of_overlayfs_does_not_count(tmp_path: Path) -> None:
    first, second = _filled(tmp_path / "a"), _filled(tmp_path / "b")
    os.setxattr(second / "dir", "user.overlay.origin", b"\x00\xfb\x1d")
    os.setxattr(second, "user.overlay.impure", b"y")
    assert _measured(first).digest == _measured(second).digest


def test_names_that_imitate_records_do_not_collide(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    (first / 'x", 33188]\n["y').touch()
    (second / "x").touch()
    (second / "y").touch()
    (first / os.fsdecode(b"\xff\xfe")).touch()
    assert _measured(first).digest != _measured(second).digest


def test_links_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "loop").symlink_to(tree)
    before = _measured(tree)
    outside.write_text("another secret")
    assert _measured(tree) == before
    assert before.size == 0


def test_a_tree_too_deep_is_refused(tmp_path: Path) -> None:
    fd = trees.open_tree(tmp_path)
    for _ in range(450):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(BadRequest, match="nested deeper"):
        _measured(tmp_path)
