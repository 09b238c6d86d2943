"""A full disk: errors that say so, a service that lives on, and room again after a removal."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox import Client, NoSpace, connect

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox, pytest.mark.needs_root]

_FILL = ["sh", "-c", "cat /dev/zero > /fill; echo full; exit 7"]


@pytest.fixture
def crowded(
    service_directory: Path, busybox_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """A client of a service whose state root has 24 MiB."""
    state = service_directory / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", state], check=True)
    monkeypatch.setenv("SANDBOX_ROOT", str(state))
    monkeypatch.setenv("SANDBOX_HOST", f"unix://{service_directory}/run/docker.sock")
    with connect(lease=False) as client:
        client.image_import(busybox_tar, "busybox:latest")
        yield client
        client.call("POST", "/sandbox/shutdown")
    subprocess.run(["umount", "-l", state], check=True)


def test_what_needs_no_disk_goes_on_and_removal_makes_room(crowded: Client) -> None:
    big = crowded.container("busybox", _FILL).start()
    assert big.wait(60) == 7
    assert crowded.run("busybox", ["echo", "on"]).stdout == b"on\n"
    with pytest.raises(NoSpace):
        crowded.image_import(_archive(1 << 20), "more:latest")
    with pytest.raises(NoSpace) as caught:
        _make_until_it_fails(crowded)
    assert caught.value.mend
    known = {each.id for each in crowded.containers(all=True)}
    assert big.id in known
    big.remove()
    assert crowded.container("busybox", ["echo", "again"]).start().wait(30) == 0
    assert "more:latest" not in [tag for image in crowded.images() for tag in image.tags]
    for container in crowded.containers(all=True):
        container.remove()


def _make_until_it_fails(client: Client) -> None:
    """Containers whose records fill what is left of the disk."""
    for _ in range(1000):
        client.container("busybox", ["true"], env={"BIG": "x" * 60_000})


def _archive(size: int) -> io.BytesIO:
    """A tar with one file that no compression makes smaller."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    archive.seek(0)
    return archive


def test_a_commit_that_finds_no_room_leaves_nothing(crowded: Client) -> None:
    script = "head -c 14000000 /dev/urandom > /big; echo small > /small"
    container = crowded.container("busybox", ["sh", "-c", script]).start()
    assert container.wait(60) == 0
    with pytest.raises(NoSpace):
        container.commit("committed:1")
    assert "committed:1" not in [tag for image in crowded.images() for tag in image.tags]
    assert ("A", "/big") in container.changes()
    again = crowded.container("busybox", ["rm", "-f", "/nothing"]).start()
    assert again.wait(30) == 0
    assert again.commit("committed:2")
    crowded.image_remove("committed:2")
    for each in (container, again):
        each.remove()


def test_a_log_that_finds_no_room_holds_nobody_up(crowded: Client) -> None:
    script = "cat /dev/zero > /fill; seq 400000; echo end"
    container = crowded.container("busybox", ["sh", "-c", script]).start()
    assert container.wait(60) == 0
    assert "missing: disk full" in container.logs().decode(errors="replace")
    container.remove()
