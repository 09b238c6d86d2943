"""The docker CLI: programs and files in a running container."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import SIZE, Docker

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_docker_cli, pytest.mark.needs_busybox]


class TestExec:
    @pytest.fixture(autouse=True)
    def _container(self, docker: Docker, busybox: str, name: str) -> None:
        docker.output("run", "-d", "--name", name, busybox, "sleep", "300")

    def test_output_streams_and_exit_code(self, docker: Docker, name: str) -> None:
        done = docker("exec", name, "sh", "-c", "echo out; echo err >&2; exit 5")
        assert (done.returncode, done.stdout, done.stderr) == (5, b"out\n", b"err\n")

    def test_standard_input(self, docker: Docker, name: str) -> None:
        data = bytes(range(256)) * 1024
        assert docker("exec", "-i", name, "cat", input=data).stdout == data

    def test_options(self, docker: Docker, name: str) -> None:
        out = docker.output(
            "exec",
            "-e",
            "A=1",
            "-w",
            "/tmp",
            "-u",
            "0",
            name,
            "sh",
            "-c",
            "echo $A $(pwd) $(id -u)",
        )
        assert out == "1 /tmp 0"

    @pytest.mark.parametrize(("command", "code"), [("/no/such", 127), ("/etc/passwd", 126)])
    def test_what_cannot_be_executed(
        self, docker: Docker, name: str, command: str, code: int
    ) -> None:
        done = docker("exec", name, command)
        assert done.returncode == code
        assert command.encode() in done.stdout + done.stderr

    def test_detached(self, docker: Docker, name: str) -> None:
        docker.output("exec", "-d", name, "touch", "/tmp/made")
        docker.output("exec", name, "sh", "-c", "until [ -e /tmp/made ]; do sleep 0.01; done")

    def test_a_terminal(self, docker: Docker, name: str) -> None:
        command = ["exec", "-it", name, "sh", "-c", f"{SIZE}; read a; echo got $a"]
        with docker.terminal(*command, rows=33, columns=99) as terminal:
            terminal.until(b"33 99")
            terminal.type(b"x\n")
            terminal.until(b"got x")
            assert terminal.end() == 0

    def test_not_in_a_stopped_container(self, docker: Docker, name: str) -> None:
        docker.output("kill", name)
        done = docker("exec", name, "true")
        assert done.returncode == 1
        assert b"is not running" in done.stderr


class TestCopy:
    @pytest.fixture(params=["created", "running"])
    def container(
        self, request: pytest.FixtureRequest, docker: Docker, busybox: str, name: str
    ) -> str:
        docker.output("create", "--name", name, busybox, "sleep", "300")
        if request.param == "running":
            docker.output("start", name)
        return name

    def test_a_file_in_and_out(self, docker: Docker, container: str, tmp_path: Path) -> None:
        data = bytes(range(256)) * 5000
        (tmp_path / "in").write_bytes(data)
        (tmp_path / "in").chmod(0o640)
        docker.output("cp", str(tmp_path / "in"), f"{container}:/tmp/file")
        docker.output("cp", f"{container}:/tmp/file", str(tmp_path / "out"))
        assert (tmp_path / "out").read_bytes() == data
        docker.output("start", container)
        assert docker.output("exec", container, "stat", "-c", "%a %s", "/tmp/file") == (
            f"640 {len(data)}"
        )

    def test_a_tree_in_and_out(self, docker: Docker, container: str, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "file").write_text("text")
        (tree / "a" / "link").symlink_to("file")
        (tree / "empty").touch()
        docker.output("cp", str(tree), f"{container}:/var/copy")
        docker.output("cp", f"{container}:/var/copy", str(tmp_path / "back"))
        back = tmp_path / "back"
        assert (back / "a" / "file").read_text() == "text"
        assert (back / "a" / "link").readlink() == Path("file")
        assert (back / "a" / "b").is_dir()
        assert (back / "empty").read_bytes() == b""
        docker.output("cp", f"{container}:/var/copy/a/.", str(tmp_path / "inner"))
        assert (tmp_path / "inner" / "file").read_text() == "text"

    def test_what_is_not_there(self, docker: Docker, container: str, tmp_path: Path) -> None:
        done = docker("cp", f"{container}:/no/such", str(tmp_path))
        assert done.returncode == 1
        assert b"/no/such" in done.stderr
        (tmp_path / "in").touch()
        done = docker("cp", str(tmp_path / "in"), f"{container}:/no/such/directory")
        assert done.returncode == 1

    def test_a_volume_is_reached_while_it_is_mounted(
        self, docker: Docker, busybox: str, name: str, tmp_path: Path
    ) -> None:
        (tmp_path / "in").write_text("into the volume")
        volume = ["-v", f"{name}:/data"]
        docker.output("create", "--name", name, *volume, busybox, "sleep", "300")
        done = docker("cp", str(tmp_path / "in"), f"{name}:/data/in")
        assert done.returncode == 1
        assert b"start the container first" in done.stderr
        docker.output("start", name)
        docker.output("cp", str(tmp_path / "in"), f"{name}:/data/in")
        out = docker.output("run", "--rm", *volume, busybox, "cat", "/data/in")
        assert out == "into the volume"
        docker.output("rm", "-f", name)
        docker.output("volume", "rm", name)
