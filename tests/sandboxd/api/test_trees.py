"""Archives of trees inside a root, and into one: nothing leads out of it, whatever the archive or
the root's own programs try. A canary stands outside."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.api.archive import split
from sandboxd.api.tree_archive import TreeArchive
from sandboxd.api.tree_extraction import TreeExtraction
from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.tar import TarReader


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "canary").write_text("sings")
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    (directory / "target").mkdir(parents=True)
    return directory


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _the_canary_sings(outside: Path) -> Iterator[None]:
    before = os.lstat(outside / "canary")
    yield
    after = os.lstat(outside / "canary")
    assert (outside / "canary").read_text() == "sings"
    assert (before.st_mode, before.st_uid, before.st_nlink) == (
        after.st_mode, after.st_uid, after.st_nlink
    )  # fmt: skip
    assert os.listdir(outside) == ["canary"]


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    info.uid, info.gid, info.mtime = os.geteuid(), os.getegid(), 1_000_000_000
    return info, data


def extract(root: int, *members: tuple[tarfile.TarInfo, bytes], strict: bool = False) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    archive = TarReader(io.BytesIO(out.getvalue()))
    TreeExtraction(root, "/target", strict=strict).extract(archive)


def test_members_arrive_with_their_attributes(root: Path, root_fd: int) -> None:
    extract(
        root_fd,
        member("d", kind=tarfile.DIRTYPE, mode=0o500),
        member("d/file", b"text", mode=0o4750),
        member("d/link", kind=tarfile.SYMTYPE, link="file"),
        member("d/hard", kind=tarfile.LNKTYPE, link="d/file"),
        member("d/fifo", kind=tarfile.FIFOTYPE),
    )
    directory = root / "target" / "d"
    assert directory.stat().st_mode & 0o7777 == 0o500
    assert directory.stat().st_mtime == 1_000_000_000
    assert (directory / "file").read_bytes() == b"text"
    assert (directory / "file").stat().st_mode & 0o7777 == 0o4750
    assert (directory / "hard").stat().st_ino == (directory / "file").stat().st_ino
    assert (directory / "link").readlink() == Path("file")
    assert (directory / "fifo").is_fifo()
    directory.chmod(0o700)


def test_what_is_there_is_replaced_but_not_a_directory(root: Path, root_fd: int) -> None:
    (root / "target" / "file").write_text("old")
    (root / "target" / "directory").mkdir()
    extract(root_fd, member("file", b"new"))
    assert (root / "target" / "file").read_text() == "new"
    with pytest.raises(BadRequest, match="cannot overwrite directory"):
        extract(root_fd, member("directory", b"x"))
    with pytest.raises(BadRequest, match="cannot overwrite non-directory"):
        extract(root_fd, member("file", kind=tarfile.DIRTYPE), strict=True)
    extract(root_fd, member("file", kind=tarfile.DIRTYPE, mode=0o755))
    assert (root / "target" / "file").is_dir()


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "..", "/../escape"])
def test_dots_are_refused(root_fd: int, name: str) -> None:
    with pytest.raises(BadRequest, match="leads out"):
        extract(root_fd, member(name, b"x"))


def test_links_of_the_root_lead_inside(root: Path, root_fd: int, outside: Path) -> None:
    (root / "target" / "absolute").symlink_to(outside)
    (root / "target" / "relative").symlink_to("../../outside")
    extract(root_fd, member("absolute/canary", b"x"), member("relative/canary", b"y"))
    assert (root / str(outside).lstrip("/") / "canary").read_text() == "x"
    assert (root / "outside" / "canary").read_text() == "y"


def test_links_of_the_archive_lead_inside(root: Path, root_fd: int, outside: Path) -> None:
    extract(
        root_fd,
        member("link", kind=tarfile.SYMTYPE, link=str(outside)),
        member("link/canary", b"x"),
        member("link", kind=tarfile.SYMTYPE, link=str(outside / "canary")),
        member("link", b"a file by then"),
    )
    assert (root / "target" / "link").read_text() == "a file by then"


def test_hard_links_reach_nothing_outside(root: Path, root_fd: int, outside: Path) -> None:
    (root / "target" / "away").symlink_to(outside)
    for target in ("away/canary", str(outside / "canary")):
        with pytest.raises((SandboxError, OSError)):
            extract(root_fd, member("hard", kind=tarfile.LNKTYPE, link=target))


def test_attributes_never_go_through_a_link(root: Path, root_fd: int, outside: Path) -> None:
    (root / "target" / "d").symlink_to(outside)
    extract(root_fd, member("d", kind=tarfile.DIRTYPE, mode=0o777))
    assert outside.stat().st_mode & 0o777 != 0o777


def test_devices_are_refused(root_fd: int) -> None:
    with pytest.raises(BadRequest, match="devices"):
        extract(root_fd, member("null", kind=tarfile.CHRTYPE))


def test_a_directory_swapped_for_a_link_meanwhile(root: Path, root_fd: int, outside: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        place, aside = root / "target" / "d", root / "target" / "aside"
        while not stop.is_set():
            try:
                place.rename(aside)
                place.symlink_to(outside)
                place.unlink()
                aside.rename(place)
            except OSError:
                continue

    (root / "target" / "d").mkdir()
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(200):
            try:
                extract(root_fd, member("d/canary", b"x"), member(f"d/{number}", b"x"))
            except SandboxError:
                continue
    finally:
        stop.set()
        swapper.join()


def archived(root: int, name: str, top: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(TreeArchive(root, name, top))))


def test_a_tree_is_archived_whole(root: Path) -> None:
    tree = root / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "file").write_bytes(b"x" * 1000)
    (tree / "hard").hardlink_to(tree / "file")
    (tree / "link").symlink_to("/outside")
    (tree / "ünïcode \n").touch()
    (tree / os.fsdecode(b"\xff")).touch()
    os.mkfifo(tree / "fifo")
    fd = os.open(root, os.O_RDONLY)
    try:
        with archived(fd, "tree", "top") as tar:
            names = {each.name: each for each in tar.getmembers()}
            data = tar.extractfile("top/file")
            assert data is not None
            assert data.read() == b"x" * 1000
    finally:
        os.close(fd)
    assert set(names) == {
        "top", "top/empty", "top/file", "top/hard", "top/link", "top/fifo",
        "top/ünïcode \n", "top/" + os.fsdecode(b"\xff"),
    }  # fmt: skip
    assert names["top/hard"].linkname == "top/file"
    assert names["top/link"].linkname == "/outside"
    assert names["top/fifo"].isfifo()


def test_a_link_is_archived_as_a_link(root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside)
    fd = os.open(root, os.O_RDONLY)
    try:
        with archived(fd, "link", "link") as tar:
            (only,) = tar.getmembers()
    finally:
        os.close(fd)
    assert only.issym()


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/etc/passwd", ("/etc", "passwd", "passwd")),
        ("etc/passwd", ("/etc", "passwd", "passwd")),
        ("/etc", ("/", "etc", "etc")),
        ("/etc/", ("/etc", ".", "etc")),
        ("/etc/.", ("/etc", ".", ".")),
        ("/", ("/", ".", ".")),
        ("//x/../../y", ("/", "y", "y")),
    ],
)
def test_the_parts_of_a_path(path: str, parts: tuple[str, str, str]) -> None:
    assert split(path) == parts
