from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def test_import_and_use(sandboxctl: Sandboxctl, busybox_tar: Path) -> None:
    change = 'CMD ["echo", "from the change"]'
    image = sandboxctl.ok("image", "import", "-c", change, str(busybox_tar), "mine:1").strip()
    assert image.startswith("sha256:")
    assert sandboxctl.ok("run", "--rm", "mine:1") == "from the change\n"
    assert ["mine", "1"] in [line.split()[:2] for line in sandboxctl.ok("images").splitlines()]
    assert json.loads(sandboxctl.ok("image", "inspect", "mine:1"))[0]["Id"] == image
    sandboxctl.ok("image", "tag", "mine:1", "mine")
    assert sandboxctl.ok("image", "rm", "mine:1") == "Untagged: mine:1\n"
    assert f"Deleted: {image}" in sandboxctl.ok("image", "rm", "mine")


def test_import_from_standard_input(sandboxctl: Sandboxctl, busybox_tar: Path) -> None:
    packed = gzip.compress(busybox_tar.read_bytes(), 1)
    sandboxctl.ok("image", "import", "-", "packed", stdin=packed)
    assert sandboxctl.ok("run", "--rm", "packed", "echo", "hi") == "hi\n"
    sandboxctl.ok("image", "rm", "packed")


def test_progress_is_for_people(sandboxctl: Sandboxctl, busybox_tar: Path) -> None:
    terminal = sandboxctl.on_terminal("image", "import", str(busybox_tar), "watched")
    terminal.expect("sha256:")
    assert terminal.wait() == 0
    sandboxctl.ok("image", "rm", "watched")


@pytest.mark.parametrize(
    ("content", "reference", "words"),
    [
        (b"no tar at all" * 100, "bad", b"sandboxctl: "),
        (b"", "UPPER", b"invalid reference format"),
    ],
)
def test_imports_that_fail(
    sandboxctl: Sandboxctl, tmp_path: Path, content: bytes, reference: str, words: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    before = sandboxctl.ok("images", "-q")
    done = sandboxctl("image", "import", str(tmp_path / "file"), reference)
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr
    assert sandboxctl.ok("images", "-q") == before


def test_a_file_that_is_not_there(sandboxctl: Sandboxctl, tmp_path: Path) -> None:
    done = sandboxctl("image", "import", str(tmp_path / "nope"), "x")
    assert (done.returncode, b"No such file" in done.stderr) == (2, True)


def test_the_image_host_is_always_there(sandboxctl: Sandboxctl) -> None:
    assert "host" in sandboxctl.ok("image", "ls")
    done = sandboxctl("image", "rm", "host")
    assert done.returncode == 1
    assert "host" in sandboxctl.ok("image", "ls")


def test_volumes(sandboxctl: Sandboxctl) -> None:
    assert sandboxctl.ok("volume", "create", "-l", "a=b", "made") == "made\n"
    assert json.loads(sandboxctl.ok("volume", "inspect", "made"))[0]["Labels"] == {"a": "b"}
    assert "local    made" in sandboxctl.ok("volume", "ls")
    assert sandboxctl.ok("volume", "rm", "made") == "made\n"
    done = sandboxctl("volume", "rm", "made")
    assert (done.returncode, b"get made: no such volume" in done.stderr) == (1, True)
    assert sandboxctl.ok("volume", "rm", "-f", "made") == "made\n"


def test_prune(sandboxctl: Sandboxctl) -> None:
    name = sandboxctl.ok("volume", "create").strip()
    output = sandboxctl.ok("volume", "prune")
    assert name in output
    assert "Reclaimed: 0B" in output


def test_snapshots(sandboxctl: Sandboxctl, busybox: str) -> None:
    from pytest_sandbox import Recipe, connect

    recipe = Recipe(busybox, "/d", steps=[["sh", "-c", "echo seed > /d/x"]])
    with connect(sandboxctl.environ["SANDBOX_HOST"], autostart=False) as client:
        key = client.snapshot(recipe).key
    assert sandboxctl.ok("snapshot", "ls", "-q").splitlines().count(key) == 1
    assert key.removeprefix("sha256:")[:12] in sandboxctl.ok("snapshot", "ls")
    assert json.loads(sandboxctl.ok("snapshot", "inspect", key))[0]["key"] == key
    sandboxctl.ok("volume", "create", "--snapshot", key, "seeded")
    assert sandboxctl.ok("run", "--rm", "-v", "seeded:/d", busybox, "cat", "/d/x") == "seed\n"
    assert sandboxctl("snapshot", "rm", key).returncode == 1
    sandboxctl.ok("volume", "rm", "seeded")
    sandboxctl.ok("snapshot", "rm", key)
    assert key not in sandboxctl.ok("snapshot", "ls", "-q")
