"""Builds by clients that others wrote: the docker command in several ages, docker-py."""

from __future__ import annotations

import gc
import io
import json
import os
import socket
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Docker

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

DOCKERFILE = """\
FROM busybox
ARG WHO=nobody
WORKDIR /app
COPY . /app/
RUN echo said $WHO && cp in out
CMD ["cat", "/app/out"]
"""


def unique() -> str:
    return f"built-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """With a text of its own, so that no other test's cache answers."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "in").write_text(f"{tmp_path}\n")
    (directory / "secret").write_text("x")
    (directory / ".dockerignore").write_text("secret\n.dockerignore\n")
    return directory


def _until_staging_is_empty(service: Service) -> None:
    deadline = time.monotonic() + 30
    while os.listdir(service.root / "staging") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert os.listdir(service.root / "staging") == []


@pytest.mark.needs_docker_cli
class TestDockerCommand:
    @pytest.fixture
    def name(self, docker: Docker, busybox: str) -> Iterator[str]:
        name = unique()
        yield name
        docker("rmi", "-f", name)

    def test_build_run_and_build_again(self, docker: Docker, context: Path, name: str) -> None:
        """It falls back to the classic builder by itself."""
        done = docker("build", "-t", name, "--build-arg", "WHO=me", str(context))
        assert done.returncode == 0, done.stderr
        assert b"Step 5/6 : RUN echo said $WHO" in done.stdout
        assert b"said me" in done.stdout
        assert b"Successfully tagged %s:latest" % name.encode() in done.stdout
        assert docker.output("run", "--rm", name) == (context / "in").read_text().strip()
        assert docker.output("run", "--rm", name, "ls", "/app").split() == ["Dockerfile", "in",
                                                                            "out"]  # fmt: skip
        again = docker("build", "-t", name, "--build-arg", "WHO=me", str(context))
        assert again.stdout.count(b"Using cache") == 5

    def test_the_old_builder_by_name(self, docker: Docker, context: Path, name: str) -> None:
        docker.environ["DOCKER_BUILDKIT"] = "0"
        id = docker.output("build", "-q", "-t", name, str(context))
        assert id == docker.output("inspect", "--format", "{{.Id}}", name)

    def test_a_failing_command_gives_its_code(self, docker: Docker, context: Path) -> None:
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo last words && exit 9\n")
        done = docker("build", str(context))
        assert done.returncode == 9
        assert b"Dockerfile line 2" in done.stderr
        assert b"last words" in done.stderr

    def test_a_wrong_dockerfile(self, docker: Docker, context: Path) -> None:
        (context / "Dockerfile").write_text("FROM busybox\nNONSENSE\n")
        done = docker("build", str(context))
        assert done.returncode != 0
        assert b"line 2: unknown instruction: NONSENSE" in done.stderr

    def test_a_dockerfile_on_standard_input(self, docker: Docker, name: str, context: Path) -> None:
        done = docker("build", "-t", name, "-", input=b"FROM busybox\nRUN echo hi\n")
        assert done.returncode == 0, done.stderr
        done = docker("build", "-t", name, "-f", "-", str(context), input=DOCKERFILE.encode())
        assert done.returncode == 0, done.stderr

    def test_a_target_and_a_file_of_another_name(
        self, docker: Docker, name: str, context: Path
    ) -> None:
        (context / "other").write_text(
            "FROM busybox AS one\nLABEL stage=one\nFROM one\nLABEL stage=two\n"
        )
        file = str(context / "other")
        docker.output("build", "-q", "-t", name, "-f", file, "--target", "one", str(context))
        label = docker.output("inspect", "--format", "{{.Config.Labels.stage}}", name)
        assert label == "one"

    def test_a_base_that_a_registry_has(
        self, docker: Docker, name: str, context: Path, registry: Registry, busybox: str
    ) -> None:
        base = f"{registry.address}/base:{uuid.uuid4().hex[:8]}"
        docker.output("tag", busybox, base)
        docker.output("push", base)
        docker.output("rmi", base)
        (context / "Dockerfile").write_text(f"FROM {base}\nRUN echo over it\n")
        done = docker("build", "-t", name, str(context))
        assert done.returncode == 0, done.stderr
        assert b"over it" in done.stdout
        docker.output("build", "-q", "--pull", "-t", name, str(context))
        docker.output("rmi", "-f", base)
        registry.stop()
        (context / "Dockerfile").write_text(f"FROM {base}\nRUN echo never\n")
        done = docker("build", str(context))
        assert done.returncode != 0
        assert b"Dockerfile line 1" in done.stderr

    def test_a_client_that_leaves_ends_the_build(
        self, docker: Docker, context: Path, service: Service, busybox: str
    ) -> None:
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo u''p; exec sleep 1000\n")
        process = docker.popen("build", str(context))
        assert process.stdout is not None
        while b"up\n" not in process.stdout.readline():
            pass
        process.kill()
        process.communicate()
        _until_staging_is_empty(service)

    def test_disk_use(self, docker: Docker, name: str, context: Path) -> None:
        docker.output("build", "-q", "-t", name, str(context))
        rows = docker.output("system", "df", "--format", "{{.Type}} {{.TotalCount}}")
        counts = dict(row.rsplit(" ", 1) for row in rows.splitlines())
        assert int(counts["Build Cache"]) >= 2

    def test_history(self, docker: Docker, name: str, context: Path) -> None:
        docker.output("build", "-q", "-t", name, str(context))
        rows = docker.output("history", "--no-trunc", "--format", "{{.CreatedBy}}", name)
        assert rows.splitlines()[:3] == [
            'CMD ["cat", "/app/out"]',
            "RUN |1 WHO=nobody /bin/sh -c echo said $WHO && cp in out",
            "COPY . /app/",
        ]

    def test_what_is_not_enforced_is_refused(self, docker: Docker, context: Path) -> None:
        docker.environ["DOCKER_BUILDKIT"] = "0"
        done = docker("build", "--memory", "64m", str(context))
        assert done.returncode != 0
        assert b"memory" in done.stderr


def test_an_upload_that_breaks_off_builds_nothing(service: Service, busybox: str) -> None:
    """What came so far must not pass for a shorter context."""
    head = b"POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(service.socket))
        connection.sendall(head + b"200\r\n" + bytes(0x200) + b"\r\n")
    _until_staging_is_empty(service)


@pytest.mark.needs_docker_py
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestDockerPy:
    @pytest.fixture
    def client(self, service: Service, busybox: str) -> Iterator[Any]:
        docker = pytest.importorskip("docker")
        made = docker.DockerClient(base_url=service.host)
        yield made
        made.close()
        # What it leaves open is collected here, where the marker above is in force.
        gc.collect()

    def test_a_directory(self, client: Any, context: Path) -> None:
        name = unique()
        image, logs = client.images.build(path=str(context), tag=name, rm=True)
        assert f"{name}:latest" in image.tags
        assert any("said nobody" in entry.get("stream", "") for entry in logs)
        client.images.remove(name)

    def test_a_file_and_a_context_of_ones_own(self, client: Any) -> None:
        image, _ = client.images.build(
            fileobj=io.BytesIO(b"FROM busybox\nENV A=1\n"), buildargs={"X": "1"}, labels={"l": "v"}
        )
        assert image.labels == {"l": "v"}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in (("Dockerfile", b"FROM busybox\nCOPY f /\n"), ("f", b"x")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        buffer.seek(0)
        image, _ = client.images.build(fileobj=buffer, custom_context=True, encoding="gzip")
        assert client.containers.run(image.id, "cat /f", remove=True) == b"x"

    def test_a_failure_has_the_log(self, client: Any) -> None:
        docker = pytest.importorskip("docker")
        file = io.BytesIO(b"FROM busybox\nRUN echo before && false\n")
        with pytest.raises(docker.errors.BuildError) as caught:
            client.images.build(fileobj=file)
        assert "returned a non-zero code: 1" in caught.value.msg
        assert any("before" in entry.get("stream", "") for entry in caught.value.build_log)

    def test_pruning(self, client: Any) -> None:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo to-prune > /f\n"))
        answer = client.api.prune_builds()
        assert answer["CachesDeleted"]
        assert json.dumps(answer["SpaceReclaimed"]).isdigit()
