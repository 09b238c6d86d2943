"""Paths in hostile trees: whatever a name is, nothing outside the root is opened or made.

Every case runs by openat2 and by the walk that stands in for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.linux import openat2
from sandboxd.linux.syscalls import libc


@dataclass
class Tree:
    """A root with an outside beside it that nothing may touch."""

    root: Path
    outside: Path
    fd: int

    def outside_files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.outside.iterdir()}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "canary").write_text("untouched")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    tree = Tree(root, outside, fd)
    yield tree
    os.close(fd)
    assert tree.outside_files() == {"canary": "untouched"}


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With `walk`, the kernel has no openat2."""
    if request.param == "walk":

        def refuse(*args: object, **options: object) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(openat2, "openat2", refuse)
    return str(request.param)


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    finally:
        os.close(fd)


@pytest.mark.usefixtures("way")
class TestOpenBeneath:
    @pytest.mark.parametrize(
        "path", ["a/b", "/a/b", "a/./b", "a//b/", "../a/b", "a/../../a/b", "/../../a/b"]
    )
    def test_a_path_is_resolved_from_the_root(self, tree: Tree, path: str) -> None:
        (tree.root / "a/b").mkdir(parents=True)
        assert _same(openat2.open_beneath(tree.fd, path, os.O_PATH), tree.root / "a/b")

    @pytest.mark.parametrize("path", ["/", ".", "..", "/..", "a/..", "a/../../.."])
    def test_the_root_is_the_end_of_every_climb(self, tree: Tree, path: str) -> None:
        (tree.root / "a").mkdir()
        assert _same(openat2.open_beneath(tree.fd, path, os.O_PATH), tree.root)

    def test_links_lead_on_inside(self, tree: Tree) -> None:
        (tree.root / "etc").mkdir()
        (tree.root / "etc/passwd").write_text("inside")
        links = {
            "absolute": "/etc/passwd",
            "climbing": "../../../../etc/passwd",
            "chain": "absolute",
            "directory": "/etc",
        }
        for name, target in links.items():
            (tree.root / name).symlink_to(target)
        for path in ("absolute", "climbing", "chain", "directory/passwd"):
            with open(openat2.open_beneath(tree.fd, path, os.O_RDONLY)) as file:
                assert file.read() == "inside"

    def test_an_outside_target_is_looked_for_inside(self, tree: Tree) -> None:
        (tree.root / "link").symlink_to(tree.outside / "canary")
        with pytest.raises(FileNotFoundError, match="link"):
            openat2.open_beneath(tree.fd, "link", os.O_RDONLY)

    def test_a_created_file_lands_inside(self, tree: Tree) -> None:
        (tree.root / "link").symlink_to("../outside/canary")
        (tree.root / "outside").mkdir()
        fd = openat2.open_beneath(tree.fd, "link", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"inside")
        os.close(fd)
        assert (tree.root / "outside/canary").read_text() == "inside"

    def test_nofollow_opens_the_link_itself(self, tree: Tree) -> None:
        (tree.root / "link").symlink_to("/nowhere")
        fd = openat2.open_beneath(tree.fd, "link", os.O_PATH | os.O_NOFOLLOW)
        assert os.readlink("", dir_fd=fd) == "/nowhere"
        os.close(fd)

    def test_a_loop_is_an_error(self, tree: Tree) -> None:
        (tree.root / "one").symlink_to("two")
        (tree.root / "two").symlink_to("one")
        for path in ("one", "one/below"):
            with pytest.raises(OSError, match="one") as caught:
                openat2.open_beneath(tree.fd, path, os.O_PATH)
            assert caught.value.errno == errno.ELOOP

    def test_a_file_is_no_directory(self, tree: Tree) -> None:
        (tree.root / "file").touch()
        with pytest.raises(NotADirectoryError, match="file/below"):
            openat2.open_beneath(tree.fd, "file/below", os.O_PATH)

    def test_a_magic_link_leads_nowhere(self, tree: Tree) -> None:
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
        outside = os.open(tree.outside, os.O_PATH)
        with pytest.raises(OSError, match="fd"):
            openat2.open_beneath(proc, f"fd/{outside}/canary", os.O_RDONLY)
        os.close(outside)
        os.close(proc)

    def test_a_failing_open_leaves_no_descriptor(self, tree: Tree) -> None:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(FileNotFoundError):
            openat2.open_beneath(tree.fd, "a/b/../c", os.O_PATH)
        assert os.listdir("/proc/self/fd") == before

    def test_the_descriptor_closes_at_exec(self, tree: Tree) -> None:
        fd = openat2.open_beneath(tree.fd, "/", os.O_PATH)
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.usefixtures("way")
class TestMakeDirectories:
    def test_what_is_there_stays(self, tree: Tree) -> None:
        (tree.root / "a/b").mkdir(parents=True, mode=0o700)
        assert _same(openat2.make_directories(tree.fd, "/a/b", 0o755), tree.root / "a/b")

    def test_what_is_missing_is_made(self, tree: Tree) -> None:
        mask = os.umask(0)
        assert _same(openat2.make_directories(tree.fd, "a/b/c", 0o751), tree.root / "a/b/c")
        os.umask(mask)
        assert (tree.root / "a/b").stat().st_mode & 0o777 == 0o751

    def test_the_root_itself(self, tree: Tree) -> None:
        assert _same(openat2.make_directories(tree.fd, "/", 0o755), tree.root)

    @pytest.mark.parametrize(
        ("target", "made"),
        [
            ("/run", "run/x"),
            ("../../../run", "run/x"),
            ("/deep/er", "deep/er/x"),
            ("sibling", "var/sibling/x"),
            ("/var/../run/./", "run/x"),
            ("/", "x"),
        ],
    )
    def test_a_dangling_link_leads_to_a_directory_inside(
        self, tree: Tree, target: str, made: str
    ) -> None:
        (tree.root / "var").mkdir()
        (tree.root / "var/run").symlink_to(target)
        assert _same(openat2.make_directories(tree.fd, "/var/run/x", 0o755), tree.root / made)

    def test_links_to_the_outside_make_nothing_there(self, tree: Tree) -> None:
        (tree.root / "link").symlink_to(tree.outside)
        fd = openat2.make_directories(tree.fd, "link/new", 0o755)
        assert _same(fd, tree.root / str(tree.outside).lstrip("/") / "new")

    def test_a_link_to_proc_is_just_a_link(self, tree: Tree) -> None:
        (tree.root / "proc").symlink_to("/etc")
        fd = openat2.make_directories(tree.fd, "proc/self/fd", 0o755)
        assert _same(fd, tree.root / "etc/self/fd")

    def test_a_file_in_the_way_is_an_error(self, tree: Tree) -> None:
        (tree.root / "file").touch()
        for path in ("file", "file/below/it"):
            with pytest.raises(NotADirectoryError, match=path):
                openat2.make_directories(tree.fd, path, 0o755)

    def test_a_loop_is_an_error(self, tree: Tree) -> None:
        (tree.root / "loop").symlink_to("loop")
        with pytest.raises(OSError, match="loop") as caught:
            openat2.make_directories(tree.fd, "loop/x", 0o755)
        assert caught.value.errno == errno.ELOOP

    def test_no_descriptor_is_left(self, tree: Tree) -> None:
        (tree.root / "file").touch()
        before = os.listdir("/proc/self/fd")
        os.close(openat2.make_directories(tree.fd, "a/b/../c/d", 0o755))
        with pytest.raises(OSError):
            openat2.make_directories(tree.fd, "a/b/c/../../../file/x", 0o755)
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("way")
class TestMakeFile:
    def test_an_empty_file_is_made_with_its_directories(self, tree: Tree) -> None:
        mask = os.umask(0)
        fd = openat2.make_file(tree.fd, "/etc/new/hosts")
        os.umask(mask)
        assert _same(fd, tree.root / "etc/new/hosts")
        assert (tree.root / "etc/new/hosts").stat().st_mode & 0o7777 == 0o644

    def test_what_is_there_keeps_its_content(self, tree: Tree) -> None:
        (tree.root / "file").write_text("kept")
        assert _same(openat2.make_file(tree.fd, "file"), tree.root / "file")
        assert (tree.root / "file").read_text() == "kept"

    def test_a_fifo_blocks_nobody(self, tree: Tree) -> None:
        os.mkfifo(tree.root / "fifo")
        assert _same(openat2.make_file(tree.fd, "fifo"), tree.root / "fifo")

    def test_a_dangling_link_leads_to_a_file_inside(self, tree: Tree) -> None:
        (tree.root / "etc").mkdir()
        (tree.root / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
        fd = openat2.make_file(tree.fd, "/etc/resolv.conf")
        assert _same(fd, tree.root / "run/resolve/stub.conf")

    def test_a_directory_is_an_error(self, tree: Tree) -> None:
        (tree.root / "dir").mkdir()
        for path in ("dir", "/", ".."):
            with pytest.raises(IsADirectoryError, match="make file"):
                openat2.make_file(tree.fd, path)


def test_other_rules_can_be_asked_for(tree: Tree) -> None:
    (tree.root / "link").symlink_to("/")
    with pytest.raises(OSError) as caught:
        openat2.open_beneath(tree.fd, "link", os.O_PATH, resolve=openat2.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV


def test_a_link_that_is_swapped_all_the_time_leads_nowhere_outside(tree: Tree) -> None:
    """CVE-2021-30465, CVE-2018-15664: a directory and a link to the outside change places."""
    (tree.root / "place").mkdir()
    (tree.root / "spare").symlink_to(tree.outside)
    stop = threading.Event()
    swapper = threading.Thread(target=_swap, args=(tree, stop))
    swapper.start()
    try:
        for number in range(500):
            for make in (openat2.make_directories, openat2.make_file):
                with contextlib.suppress(OSError):
                    fd = make(tree.fd, f"place/{make.__name__}/{number % 3}", 0o755)
                    place = os.readlink(f"/proc/self/fd/{fd}")
                    os.close(fd)
                    assert place.startswith(f"{tree.root}/")
    finally:
        stop.set()
        swapper.join()


def _swap(tree: Tree, stop: threading.Event) -> None:
    """renameat2(2) with RENAME_EXCHANGE: there is always one of the two."""
    place, spare = (os.fsencode(tree.root / name) for name in ("place", "spare"))
    while not stop.is_set():
        assert libc.renameat2(-100, place, -100, spare, 2) == 0
