"""docker-py: the library under most Python tools that speak to Docker."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

docker = pytest.importorskip("docker")

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_docker_py,
    pytest.mark.needs_busybox,
    # docker-py leaves the sockets of its streams to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    made = docker.DockerClient(base_url=service.host)
    yield made
    made.close()


@pytest.fixture
def sleeper(client: Any, busybox: str) -> Iterator[Any]:
    container = client.containers.run(busybox, ["sleep", "300"], detach=True)
    yield container
    container.remove(force=True, v=True)


def test_it_negotiates_our_version(client: Any) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.45"
    assert client.info()["OSType"] == "linux"


def test_run_returns_the_output(client: Any, busybox: str) -> None:
    assert client.containers.run(busybox, "echo hi", remove=True) == b"hi\n"
    out = client.containers.run(busybox, ["sh", "-c", "echo e >&2"], stderr=True, remove=True)
    assert out == b"e\n"


def test_a_failing_run_raises_with_its_code(client: Any, busybox: str) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run(busybox, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert b"bad" in caught.value.stderr


def test_errors_have_docker_pys_classes(client: Any, busybox: str) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuchimage:1", "true")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuchimage:1")
    with pytest.raises(docker.errors.APIError, match="refused"):
        client.images.pull("127.0.0.1:1/nosuchimage", "1")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nosuchcontainer")
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("nosuchvolume")
    container = client.containers.create(busybox, "/no/such/command")
    with pytest.raises(docker.errors.APIError) as caught:
        container.start()
    container.remove()
    assert caught.value.status_code == 400


def test_exec_run_keeps_every_output(sleeper: Any) -> None:
    # docker-py drops whatever arrives together with the head of the stream.
    for number in range(200):
        assert sleeper.exec_run(["echo", str(number)]) == (0, f"{number}\n".encode())


def test_exec_run_of_many_kinds(sleeper: Any) -> None:
    script = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    assert sleeper.exec_run(script, demux=True) == (7, (b"out\n", b"err\n"))
    assert sleeper.exec_run("sh -c 'echo $A'", environment={"A": "x"}) == (0, b"x\n")
    assert sleeper.exec_run("pwd", workdir="/tmp") == (0, b"/tmp\n")
    assert sleeper.exec_run("id -u", user="0") == (0, b"0\n")
    assert sleeper.exec_run("tty", tty=True).output.startswith(b"/dev/")
    assert sleeper.exec_run("/no/such").exit_code == 127
    code, stream = sleeper.exec_run(["sh", "-c", "echo a; echo b"], stream=True)
    assert (code, b"".join(stream)) == (None, b"a\nb\n")


def test_exec_socket_carries_input(client: Any, sleeper: Any) -> None:
    exec_id = client.api.exec_create(sleeper.id, ["cat"], stdin=True)["Id"]
    sock = client.api.exec_start(exec_id, socket=True)
    raw = sock._sock
    raw.sendall(b"typed")
    raw.shutdown(1)
    received = b""
    while data := raw.recv(4096):
        received += data
    sock.close()
    assert received == b"\x01\0\0\0\0\0\0\x05typed"
    assert client.api.exec_inspect(exec_id)["ExitCode"] == 0


def test_attach_to_an_ended_container_replays_its_logs(client: Any, busybox: str) -> None:
    container = client.containers.run(busybox, ["sh", "-c", "echo one; echo two"], detach=True)
    container.wait()
    try:
        for _ in range(20):
            assert container.attach(logs=True, stream=False) == b"one\ntwo\n"
    finally:
        container.remove()


def test_logs(client: Any, busybox: str) -> None:
    script = ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.02; done"]
    container = client.containers.run(busybox, script, detach=True)
    try:
        assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
        assert container.wait()["StatusCode"] == 0
        assert container.logs(tail=1) == b"3\n"
        assert container.logs(stdout=False, stderr=True) == b""
    finally:
        container.remove()


def test_the_life_of_a_container(client: Any, sleeper: Any) -> None:
    sleeper.reload()
    assert sleeper.status == "running"
    assert sleeper.attrs["HostConfig"]["LogConfig"]["Type"] == "json-file"
    assert sleeper in client.containers.list()
    assert client.containers.list(filters={"id": [sleeper.id]}) == [sleeper]
    name = f"renamed-{uuid.uuid4().hex[:8]}"
    sleeper.rename(name)
    assert client.containers.get(name).id == sleeper.id
    sleeper.kill()
    assert sleeper.wait()["StatusCode"] == 137
    sleeper.start()
    sleeper.stop(timeout=0)
    sleeper.stop()
    sleeper.reload()
    assert sleeper.status == "exited"
    assert sleeper not in client.containers.list()
    assert sleeper in client.containers.list(all=True)


def test_force_false_is_false(client: Any, sleeper: Any) -> None:
    with pytest.raises(docker.errors.APIError) as caught:
        sleeper.remove(force=False)
    assert caught.value.status_code == 409


def test_wait_for_removed(client: Any, busybox: str) -> None:
    container = client.containers.run(busybox, "true", detach=True, auto_remove=True)
    try:
        assert container.wait(condition="removed")["StatusCode"] == 0
    except docker.errors.NotFound:
        pass  # it was gone already
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(container.id)


def test_events(client: Any, busybox: str) -> None:
    label = uuid.uuid4().hex
    events = client.events(decode=True, filters={"label": [f"run={label}"]})
    client.containers.run(busybox, "true", labels={"run": label}, remove=True)
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert [action for action in seen if action in ("create", "start", "die")] == [
        "create", "start", "die"
    ]  # fmt: skip


def test_volumes(client: Any, busybox: str) -> None:
    volume = client.volumes.create(f"v-{uuid.uuid4().hex[:8]}", labels={"a": "b"})
    mount = {volume.name: {"bind": "/data", "mode": "rw"}}
    try:
        client.containers.run(
            busybox, ["sh", "-c", "echo kept > /data/f"], volumes=mount, remove=True
        )
        out = client.containers.run(busybox, "cat /data/f", volumes=mount, remove=True)
        assert out == b"kept\n"
        assert volume in client.volumes.list(filters={"label": ["a=b"]})
        assert client.volumes.create(volume.name).id == volume.id
    finally:
        volume.remove()


def test_images(client: Any, busybox: str, busybox_tar: Path) -> None:
    from .test_docker_storage import saved_image

    reference = f"loaded-{uuid.uuid4().hex[:8]}:1"
    (image,) = client.images.load(saved_image(busybox_tar.read_bytes(), reference))
    assert image.tags == [reference]
    assert image in client.images.list()
    assert image.tag("again", "2")
    assert client.images.get("again:2").id == image.id
    assert image.history()[0]["Id"] == image.id
    client.images.remove("again:2")
    client.images.remove(reference)
    assert client.images.get(busybox).attrs["Os"] == "linux"


def test_import(client: Any, busybox_tar: Path) -> None:
    reference = f"imported-{uuid.uuid4().hex[:8]}"
    with busybox_tar.open("rb") as file:
        # A generator: of a file docker-py sends the bytes as they are, and announces chunks.
        blocks = iter(lambda: file.read(1 << 16), b"")
        client.api.import_image_from_stream(blocks, reference, "v1", changes=["ENV A=1"])
    out = client.containers.run(f"{reference}:v1", "sh -c 'echo $A'", remove=True)
    assert out == b"1\n"
    client.images.remove(f"{reference}:v1")


def test_archives(client: Any, sleeper: Any) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("tmp/d/file")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    assert sleeper.put_archive("/", out.getvalue())
    assert sleeper.exec_run("cat /tmp/d/file").output == b"text"
    blocks, about = sleeper.get_archive("/tmp/d")
    assert about["name"] == "d"
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as tar:
        assert tar.getnames() == ["d", "d/file"]
    with pytest.raises(docker.errors.NotFound):
        sleeper.get_archive("/no/such")
