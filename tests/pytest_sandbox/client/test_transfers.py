"""The client's commits, saves and pushes; a leased container's writes are in memory."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import Client, Conflict, Forbidden, NotFound, connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


def test_a_leased_container_is_committed_while_it_runs(client: Client, busybox: str) -> None:
    script = "echo started > /started; while :; do :; done"
    with client.container(busybox, ["sh", "-c", script]) as container:
        container.start()
        while ("A", "/started") not in container.changes():
            time.sleep(0.01)
        image = container.commit("transfers:1", changes=['CMD ["cat", "/started"]'])
        assert container.status == "running"
    assert client.run("transfers:1").stdout == b"started\n"
    assert client.image_inspect("transfers:1")["Id"] == image
    steps = client.image_history("transfers:1")
    assert (steps[0]["Size"], steps[0]["Tags"]) == (len("started\n"), ["transfers:1"])
    client.image_remove("transfers:1")


def test_processes_that_were_stopped_stay_so(client: Client, busybox: str) -> None:
    script = "sleep 1000 & kill -STOP $!; echo $! > /pid; while :; do :; done"
    with client.container(busybox, ["sh", "-c", script]) as container:
        container.start()
        while ("A", "/pid") not in container.changes():
            time.sleep(0.01)
        client.image_remove(container.commit())
        state = container.exec(["sh", "-c", "cut -d' ' -f3 /proc/1/stat /proc/$(cat /pid)/stat"])
        assert state.stdout.split() == [b"R", b"T"]


def test_what_has_gone_with_its_end_is_not_committed(client: Client, busybox: str) -> None:
    with client.container(busybox, ["sleep", "1000"], auto_remove=True) as container:
        for call in (container.commit, container.changes):
            with pytest.raises(Conflict, match="start the container first"):
                call()
    with client.container("host", ["sleep", "1000"], auto_remove=True) as container:
        container.start()
        with pytest.raises(Conflict, match="run it without --rm"):
            container.commit()


def test_save_to_an_open_file_and_export(client: Client, busybox: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    written: list[int] = []
    client.image_save([busybox], buffer, progress=written.append)
    assert written[-1] == len(buffer.getvalue())
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        assert "manifest.json" in archive.getnames()
    with client.container(busybox, ["sh", "-c", "echo x > /y"]) as container:
        assert container.start().wait() == 0
        container.export(tmp_path / "root.tar")
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert {"y", "bin/busybox"} <= set(archive.getnames())


def test_what_cannot_leave(client: Client, busybox: str) -> None:
    with pytest.raises(Forbidden, match="this machine's own root"):
        client.image_save("host", io.BytesIO())
    with pytest.raises(Forbidden, match="this machine's own root"):
        client.image_push("host:latest")
    with pytest.raises(NotFound, match="does not exist locally"):
        client.image_push("127.0.0.1:9/nothing:1")
