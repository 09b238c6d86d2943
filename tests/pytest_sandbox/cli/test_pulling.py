"""`sandboxctl pull`, and who else pulls, against a registry of our own."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def image(service: Service, registry: Registry, busybox_tar: Path, tmp_path: Path) -> Iterator[str]:
    """The name of an image that the registry has and the service has not, nor its layer."""
    rootfs = tmp_path / "rootfs.tar"
    shutil.copy(busybox_tar, rootfs)
    with tarfile.open(rootfs, "a") as tar:
        tar.addfile(tarfile.TarInfo(f"unique-{tmp_path.name}"))
    name = f"{registry.address}/team/pulled:1"
    with connect(service.host, autostart=False) as client:
        client.image_import(rootfs, name, changes=['CMD ["echo", "pulled"]'])
        client.image_push(name)
        client.image_remove(name)
        yield name
        if any(name in each.tags for each in client.images()):
            client.image_remove(name, force=True)


def test_the_name_alone_is_printed_where_nobody_looks(sandboxctl: Sandboxctl, image: str) -> None:
    assert sandboxctl.ok("pull", image) == f"{image}\n"
    assert sandboxctl.ok("image", "pull", "-q", image) == f"{image}\n"
    assert sandboxctl.ok("run", "--rm", image) == "pulled\n"


def test_bars_are_for_people(sandboxctl: Sandboxctl, image: str) -> None:
    terminal = sandboxctl.on_terminal("pull", image)
    terminal.expect("Pull complete")
    terminal.expect(image)
    assert terminal.wait() == 0


def test_run_pulls_what_is_missing(sandboxctl: Sandboxctl, image: str) -> None:
    done = sandboxctl("run", "--rm", "--pull", "never", image)
    assert done.returncode == 125
    assert f"to mend it: sandboxctl pull {image}" in done.stderr.decode()
    assert sandboxctl.ok("run", "--rm", image) == "pulled\n"
    assert sandboxctl.ok("run", "--rm", "--pull", "always", image) == "pulled\n"
    assert sandboxctl("run", "--pull", "always", "127.0.0.1:1/app").returncode == 125


def test_pulls_that_fail(sandboxctl: Sandboxctl, image: str) -> None:
    for reference, words in (
        (f"{image}-none", "not found"),
        ("127.0.0.1:1/app", "refused"),
        ("host", "this machine's own root"),
        ("UPPER", "must be lowercase"),
    ):
        done = sandboxctl("pull", reference)
        assert done.returncode == 1
        assert words in done.stderr.decode()
        assert done.stdout == b""
    done = sandboxctl("pull", "--platform", "linux/s390x", image)
    assert "does not match" in done.stderr.decode()
