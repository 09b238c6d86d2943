"""`sandboxctl commit`, `diff`, `export`, `save`, `push`, `image prune`, as users type them."""

from __future__ import annotations

import json
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Registry

    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def container(sandboxctl: Sandboxctl, busybox: str) -> Iterator[str]:
    """An ended container that has written a file."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    sandboxctl.ok("run", "--name", name, busybox, "sh", "-c", "echo hello > /etc/written")
    yield name
    sandboxctl("rm", "-f", name)


def test_commit_diff_history_and_save(
    sandboxctl: Sandboxctl, container: str, tmp_path: Path
) -> None:
    assert sandboxctl.ok("diff", container).splitlines() == ["C /etc", "A /etc/written"]
    image = sandboxctl.ok("commit", "-m", "why", "-a", "me", container, "made:1").strip()
    history = sandboxctl.ok("history", "made:1").splitlines()
    assert history[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert "echo hello" in history[1]
    assert history[1].endswith("why")
    sandboxctl.ok("save", "-o", str(tmp_path / "made.tar"), "made:1")
    assert [path.name for path in tmp_path.iterdir()] == ["made.tar"]
    sandboxctl.ok("tag", "made:1", "made:2")
    assert sandboxctl.ok("rmi", "made:1") == "Untagged: made:1\n"
    assert f"Deleted: {image}" in sandboxctl.ok("rmi", "made:2")
    loaded = sandboxctl.ok("load", "-i", str(tmp_path / "made.tar"))
    assert loaded == "Loaded image: made:1\n"
    assert json.loads(sandboxctl.ok("image", "inspect", "made:1"))[0]["Id"] == image
    assert sandboxctl.ok("run", "--rm", "made:1", "cat", "/etc/written") == "hello\n"
    sandboxctl.ok("rmi", "made:1")


def test_the_same_image_twice_with_a_clamp(sandboxctl: Sandboxctl, container: str) -> None:
    options = ("commit", "--source-date-epoch", "1000000000", container)
    assert sandboxctl.ok(*options, "made:a") == sandboxctl.ok(*options, "made:b")
    about = json.loads(sandboxctl.ok("image", "inspect", "made:a"))[0]
    assert about["Created"] == "2001-09-09T01:46:40Z"
    sandboxctl.ok("rmi", "made:a", "made:b")


def test_export(sandboxctl: Sandboxctl, container: str, tmp_path: Path) -> None:
    sandboxctl.ok("export", "-o", str(tmp_path / "root.tar"), container)
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert archive.extractfile("etc/written").read() == b"hello\n"  # type: ignore[union-attr]


def test_a_save_that_fails_leaves_the_old_file(sandboxctl: Sandboxctl, tmp_path: Path) -> None:
    (tmp_path / "kept.tar").write_bytes(b"old")
    done = sandboxctl("save", "-o", str(tmp_path / "kept.tar"), "no-such-image:1")
    assert done.returncode == 1
    assert b"No such image" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tar"]
    assert (tmp_path / "kept.tar").read_bytes() == b"old"


def test_no_archive_on_a_terminal(sandboxctl: Sandboxctl, busybox: str) -> None:
    terminal = sandboxctl.on_terminal("save", busybox)
    terminal.expect("use -o FILE")
    assert terminal.wait() == 1


def test_prune_removes_what_has_no_name(sandboxctl: Sandboxctl, container: str) -> None:
    image = sandboxctl.ok("commit", container).strip()
    removed = sandboxctl.ok("image", "prune", "-f")
    assert f"Deleted: {image}" in removed
    assert removed.splitlines()[-1].startswith("Total reclaimed space: ")


def test_push_to_our_own_registry(
    sandboxctl: Sandboxctl, container: str, registry: Registry
) -> None:
    name = f"{registry.address}/made:1"
    image = sandboxctl.ok("commit", container, name).strip()
    assert sandboxctl.ok("push", name).startswith("1: sha256:")
    assert sandboxctl.ok("push", "--compression", "zstd", name).startswith("1: sha256:")
    sandboxctl.ok("rmi", name)
    sandboxctl.ok("pull", name)
    assert json.loads(sandboxctl.ok("image", "inspect", name))[0]["Id"] == image
    terminal = sandboxctl.on_terminal("push", name)
    terminal.expect("1: sha256:")
    assert terminal.wait() == 0
    sandboxctl.ok("rmi", name)
    done = sandboxctl("push", name)
    assert done.returncode == 1
    assert b"does not exist locally" in done.stderr
