"""`sandboxctl build` and `Client.build`."""

from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import BadRequest, BuildFailed, connect

if TYPE_CHECKING:
    from tests.conftest import Service

    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(
        f"FROM busybox\nARG WHO=nobody\nRUN echo {tmp_path} $WHO | tee /said\n"
        "FROM busybox AS second\nCOPY --from=0 /said /\nRUN --mount=type=secret,id=key "
        "cat /run/secrets/key > /key 2>/dev/null || echo none > /key\n"
    )
    return directory


class TestCommand:
    def test_in_a_pipe_it_says_the_id_alone(
        self, sandboxctl: Sandboxctl, busybox: str, context: Path
    ) -> None:
        name = f"built-{uuid.uuid4().hex[:8]}"
        id = sandboxctl.ok("build", "-t", name, "--build-arg", "WHO=me", str(context)).strip()
        assert id.startswith("sha256:")
        assert sandboxctl.ok("run", "--rm", name, "cat", "/said").endswith(" me\n")
        assert sandboxctl.ok("build", "--build-arg", "WHO=me", str(context)).strip() == id
        assert sandboxctl.ok("build", "--target", "0", str(context)).strip() != id
        sandboxctl.ok("image", "rm", "-f", name)

    def test_an_error_tells_line_and_last_words(
        self, sandboxctl: Sandboxctl, busybox: str, context: Path
    ) -> None:
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo oh no; exit 3\n")
        done = sandboxctl("build", str(context))
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"Dockerfile line 2" in done.stderr
        assert b"non-zero code: 3" in done.stderr
        assert b"oh no" in done.stderr

    def test_secrets(
        self, sandboxctl: Sandboxctl, busybox: str, context: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "key").write_text("from a file")
        secret = f"id=key,src={tmp_path}/key"
        id = sandboxctl.ok("build", "--secret", secret, str(context)).strip()
        assert sandboxctl.ok("run", "--rm", id, "cat", "/key") == "from a file"
        done = sandboxctl("build", "--secret", "id=key,src=/no/such/file", str(context))
        assert done.returncode == 2

    def test_files_elsewhere_and_standard_input(
        self, sandboxctl: Sandboxctl, busybox: str, context: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "Other").write_text("FROM busybox\nCOPY f /\n")
        (context / "f").write_text("here")
        id = sandboxctl.ok("build", "-f", str(tmp_path / "Other"), str(context)).strip()
        assert sandboxctl.ok("run", "--rm", id, "cat", "/f") == "here"
        text = b"FROM busybox\nCOPY f /g\n"
        id = sandboxctl.ok("build", "-f", "-", str(context), stdin=text).strip()
        assert sandboxctl.ok("run", "--rm", id, "cat", "/g") == "here"
        id = sandboxctl.ok("build", "-", stdin=b"FROM busybox\nENV A=5\n").strip()
        assert sandboxctl.ok("run", "--rm", id, "sh", "-c", "echo $A") == "5\n"


class TestClient:
    def test_progress_and_failure(self, service: Service, busybox: str, context: Path) -> None:
        told: list[str] = []
        with connect(service.host, autostart=False) as client:
            id = client.build(context, progress=lambda entry: told.append(entry.get("stream", "")))
            assert id == client.image_inspect(id)["Id"]
            assert told[0].startswith("Step 1/")
            (context / "Dockerfile").write_text("FROM busybox\nRUN exit 4\n")
            with pytest.raises(BuildFailed) as caught:
                client.build(context)
            assert caught.value.exit_code == 4

    def test_an_archive(self, service: Service, busybox: str) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("sub/Dockerfile")
            text = b"FROM busybox\nENV A=6\n"
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        buffer.seek(0)
        with connect(service.host, autostart=False) as client:
            id = client.build(buffer, dockerfile="sub/Dockerfile")
            assert "A=6" in client.image_inspect(id)["Config"]["Env"]
            with pytest.raises(BadRequest, match="secrets"):
                client.build(io.BytesIO(), secrets={"s": b""})

    def test_a_directory_that_is_not_there(self, service: Service, tmp_path: Path) -> None:
        with connect(service.host, autostart=False) as client:
            with pytest.raises(BadRequest, match="not a directory"):
                client.build(tmp_path / "nowhere")
            with pytest.raises(BadRequest, match="Cannot locate specified Dockerfile"):
                client.build(tmp_path)
