"""Overlay's marks, on the file system of the test's own directory and on tmpfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandboxd.linux import mount, xattrs

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


def _overlay(base: Path) -> tuple[Path, Path]:
    """(upper, merged) over a lower directory `kept` with one file."""
    mount.mount("t", str(base), "tmpfs")
    for name in ("lower/kept", "upper/kept", "work", "merged"):
        (base / name).mkdir(parents=True)
    (base / "lower/kept/below").touch()
    return base / "upper/kept", base / "merged"


def _show(base: Path) -> list[str]:
    tree = mount.overlay((f"{base}/lower",), f"{base}/upper", f"{base}/work")
    mount.move_mount(tree, f"{base}/merged")
    os.close(tree)
    return os.listdir(base / "merged/kept")


def test_an_opaque_directory_hides_what_lies_below(tmp_path: Path) -> None:
    upper, _ = _overlay(tmp_path)
    assert not xattrs.is_opaque(str(upper))
    os.setxattr(upper, xattrs.OPAQUE, b"y")
    assert xattrs.is_opaque(str(upper))
    assert _show(tmp_path) == []


def test_without_the_mark_it_shows(tmp_path: Path) -> None:
    _overlay(tmp_path)
    assert _show(tmp_path) == ["below"]


def test_a_descriptor_does_as_well(tmp_path: Path) -> None:
    upper, _ = _overlay(tmp_path)
    fd = os.open(upper, os.O_RDONLY)
    os.setxattr(fd, xattrs.OPAQUE, b"y")
    assert xattrs.is_opaque(fd)
    os.close(fd)


def test_support_is_probed_without_a_trace(tmp_path: Path) -> None:
    upper, _ = _overlay(tmp_path)
    assert xattrs.supported(str(upper))
    assert os.listxattr(upper) == []
    mount.mount("devpts", "/mnt", "devpts", 0, "newinstance")
    assert not xattrs.supported("/mnt")


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    for call in (xattrs.is_opaque, xattrs.supported):
        with pytest.raises(FileNotFoundError):
            call(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("user.overlay.opaque", True),
        ("user.overlay.redirect", True),
        ("trusted.overlay.metacopy", True),
        ("user.overlayed", False),
        ("security.capability", False),
    ],
)
def test_marks_are_told_from_content(name: str, own: bool) -> None:
    assert xattrs.is_overlays_own(name) is own
