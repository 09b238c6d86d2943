"""Kept states on disk: whole, bounded, the newest first; uppers copied as they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_sandbox.post_mortem.copying import Copier, TooLarge
from pytest_sandbox.post_mortem.settings import Bounds
from pytest_sandbox.post_mortem.shelf import Kept, Shelf, remove_tree
from pytest_sandbox.post_mortem.state import ContainerState, State


def _state(nodeid: str, when: float, **more: object) -> State:
    fields = {"interpreter": sys.executable, "rootdir": "/", "directory": "/"}
    return State(nodeid, when, **fields, options=("-x",), environ={"A": "1"}, **more)  # type: ignore[arg-type]


def _keep(shelf: Shelf, state: State, bounds: Bounds) -> Kept:
    with shelf.staging() as staged:
        (staged / "uppers").mkdir()
        return shelf.publish(staged, state, bounds)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    container = ContainerState(
        "db", "db-1", "i", "busybox", {"Env": ["A=1"]}, {"/data": "0.tar"}, ("sh",)
    )
    state = _state("t.py::a", 5.0, plan=([["root", "0", 493]], "/dev/shm", True, ""), uppers=("0",),
                   containers=(container,))  # fmt: skip
    _keep(shelf, state, Bounds(5, 1000))
    (kept,) = shelf.kept()
    assert kept.state == state
    assert stat.S_IMODE(shelf.root.stat().st_mode) == 0o700


def test_the_oldest_go_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for when in (1.0, 3.0, 2.0, 4.0):
        _keep(shelf, _state(f"t{when}", when, size=10), Bounds(3, 1000))
    assert [kept.state.when for kept in shelf.kept()] == [4.0, 3.0, 2.0]
    shelf.trim(Bounds(3, 25))
    assert [kept.state.when for kept in shelf.kept()] == [4.0, 3.0]
    shelf.remove(shelf.kept()[0])
    assert [kept.state.when for kept in shelf.kept()] == [3.0]


def test_a_writer_that_fails_or_dies_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(ZeroDivisionError), shelf.staging():
        _ = 1 / 0
    code = (
        "import os, sys; from pathlib import Path; "
        "from pytest_sandbox.post_mortem.shelf import Shelf\n"
        "with Shelf(Path(sys.argv[1])).staging(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert len(os.listdir(shelf.root)) == 1
    with shelf.staging() as staged:
        shelf.trim(Bounds(3, 100))
        assert sorted(os.listdir(shelf.root)) == [".lock", staged.name]
    assert os.listdir(shelf.root) == [".lock"]


def test_what_is_no_state_is_passed_over(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    kept = _keep(shelf, _state("t", 1.0), Bounds(3, 100))
    assert Shelf(tmp_path / "nowhere").kept() == []
    (kept.path / "state.json").write_text("{}")
    assert shelf.kept() == []


def test_an_upper_is_copied_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    (source / "d" / "f").write_text("content")
    (source / "d" / "f").chmod(0o640)
    os.truncate(source / "d" / "f", 1 << 30)
    (source / "link").symlink_to("d/f")
    os.mkfifo(source / "pipe")
    os.mknod(source / "gone", 0o020000, 0)
    os.setxattr(source / "d", "user.overlay.opaque", b"y")
    os.utime(source / "d", (1, 2))
    (source / "closed").write_text("x")
    (source / "closed").chmod(0)
    copier = Copier(1 << 20)
    with _opened(source) as reading, _opened(target) as writing:
        copier.copy(reading, writing, "/x")
    copy = (target / "d" / "f").stat()
    assert (copy.st_size, stat.S_IMODE(copy.st_mode)) == (1 << 30, 0o640)
    assert copy.st_blocks < 100
    assert os.readlink(target / "link") == "d/f"
    assert stat.S_ISFIFO((target / "pipe").lstat().st_mode)
    gone = (target / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(target / "d", "user.overlay.opaque") == b"y"
    assert (target / "d").stat().st_mtime == 2
    assert copier.left_out == ([] if os.geteuid() == 0 else ["/x/closed"])


def test_a_state_beyond_the_budget_is_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "f").write_bytes(bytes(100_000))
    with _opened(source) as reading, _opened(target) as writing, pytest.raises(TooLarge):
        Copier(50_000).copy(reading, writing)


def test_a_tree_goes_though_it_forbids_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b").chmod(0)
    (tmp_path / "a").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
