"""The docker CLI: containers, in the foreground and detached."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from .conftest import SIZE, Docker, unique

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_docker_cli, pytest.mark.needs_busybox]


class TestRun:
    def test_output_and_exit_code(self, docker: Docker, busybox: str) -> None:
        done = docker("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")

    def test_success(self, docker: Docker, busybox: str) -> None:
        assert docker.output("run", "--rm", busybox, "echo", "hi") == "hi"

    @pytest.mark.parametrize("rm", [True, False])
    @pytest.mark.parametrize(
        ("command", "code"), [("/no/such/command", 127), ("nosuchcommand", 127), ("/etc", 126)]
    )
    def test_what_cannot_be_executed(
        self, docker: Docker, busybox: str, name: str, rm: bool, command: str, code: int
    ) -> None:
        flags = ["--rm"] if rm else []
        done = docker("run", *flags, "--name", name, busybox, command)
        assert done.returncode == code, done.stderr
        assert command.encode() in done.stderr
        assert docker("inspect", name).returncode == (1 if rm else 0)

    def test_not_executable_is_126(self, docker: Docker, busybox: str) -> None:
        done = docker("run", "--rm", busybox, "/etc/passwd")
        assert done.returncode == 126
        assert b"permission denied" in done.stderr.lower()

    def test_an_unknown_image_is_125_and_says_how_to_get_it(self, docker: Docker) -> None:
        done = docker("run", "--rm", "127.0.0.1:1/nosuchimage:1", "true")
        assert done.returncode == 125
        assert b"sandboxctl image load" in done.stderr

    def test_a_container_killed_by_a_signal_is_128_and_more(
        self, docker: Docker, busybox: str
    ) -> None:
        # Pid 1 gets no default action for a signal that it sends itself: its child is killed.
        done = docker("run", "--rm", busybox, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
        assert done.returncode == 137

    def test_standard_input_reaches_the_command(self, docker: Docker, busybox: str) -> None:
        data = bytes(range(256)) * 8192
        done = docker("run", "--rm", "-i", busybox, "cat", input=data)
        assert done.returncode == 0
        assert done.stdout == data

    def test_a_command_that_does_not_read_its_input(self, docker: Docker, busybox: str) -> None:
        data = b"line\n" * 200_000
        done = docker("run", "--rm", "-i", busybox, "head", "-n", "1", input=data)
        assert (done.returncode, done.stdout) == (0, b"line\n")

    def test_large_output_arrives_whole(self, docker: Docker, busybox: str) -> None:
        script = "dd if=/dev/zero bs=65536 count=160 2>/dev/null"
        done = docker("run", "--rm", busybox, "sh", "-c", script)
        assert len(done.stdout) == 160 * 65536

    def test_options(self, docker: Docker, busybox: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("bound")
        script = "echo $A; pwd; hostname; id -u; cat /b/file; touch /b/x 2>/dev/null || echo ro"
        out = docker.output(
            "run", "--rm", "-e", "A=1", "-w", "/made/here", "--hostname", "h", "-u", "0",
            "-v", f"{tmp_path}:/b:ro", busybox, "sh", "-c", script,
        )  # fmt: skip
        assert out.split() == ["1", "/made/here", "h", "0", "boundro"]

    def test_a_terminal(self, docker: Docker, busybox: str, name: str) -> None:
        command = ["run", "-it", "--rm", "--name", name, busybox, "sh", "-c"]
        script = f"{SIZE}; tty; read answer; echo got $answer"
        with docker.terminal(*command, script, rows=31, columns=97) as terminal:
            terminal.until(b"/dev/")
            assert b"31 97" in terminal.seen
            terminal.type(b"yes\n")
            terminal.until(b"got yes")
            assert terminal.end() == 0

    def test_a_terminal_has_its_size_from_the_start(self, docker: Docker, busybox: str) -> None:
        version = docker.output("version", "--format", "{{.Client.DefaultAPIVersion}}")
        if tuple(map(int, version.split("."))) < (1, 42):
            pytest.skip("this CLI sends the size after the start")
        with docker.terminal("run", "-it", "--rm", busybox, "stty", "size", rows=7) as terminal:
            terminal.end()
        assert b"7 80" in terminal.seen

    def test_the_detach_keys_leave_it_running(
        self, docker: Docker, busybox: str, name: str
    ) -> None:
        with docker.terminal("run", "-it", "--name", name, busybox, "sh") as terminal:
            terminal.until(b"#")
            terminal.type(b"\x10\x11")
            terminal.end()
        assert docker.output("inspect", "-f", "{{.State.Status}}", name) == "running"

    def test_signals_of_the_cli_are_passed_on(
        self, docker: Docker, busybox: str, name: str
    ) -> None:
        script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
        process = docker.popen("run", "--rm", "--name", name, busybox, "sh", "-c", script)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (9, b"caught\n")


class TestDetached:
    def test_logs_wait_inspect_and_remove(self, docker: Docker, busybox: str, name: str) -> None:
        script = "echo one; echo two >&2; exit 4"
        container = docker.output("run", "-d", "--name", name, busybox, "sh", "-c", script)
        assert len(container) == 64
        assert docker.output("wait", name) == "4"
        state = json.loads(docker.output("inspect", "-f", "{{json .State}}", name))
        assert (state["Status"], state["ExitCode"]) == ("exited", 4)
        logs = docker("logs", name)
        assert (logs.stdout, logs.stderr) == (b"one\n", b"two\n")
        assert docker.output("rm", name) == name
        assert docker("inspect", name).returncode == 1

    def test_logs_follow_until_the_end(self, docker: Docker, busybox: str, name: str) -> None:
        script = "for i in 1 2 3; do echo $i; sleep 0.05; done"
        docker.output("run", "-d", "--name", name, busybox, "sh", "-c", script)
        assert docker.output("logs", "-f", name).split() == ["1", "2", "3"]

    def test_logs_tail_and_timestamps(self, docker: Docker, busybox: str, name: str) -> None:
        docker.output("run", "--name", name, busybox, "sh", "-c", "printf 'a\\nb\\nc'")
        assert docker.output("logs", "--tail", "2", name) == "b\nc"
        stamped = docker.output("logs", "-t", "--tail", "1", name)
        stamp, text = stamped.split(" ")
        assert (stamp[-1], text) == ("Z", "c")
        assert docker.output("logs", "--since", "1h", name) == "a\nb\nc"
        assert docker.output("logs", "--until", "1h", name) == ""

    def test_attach_carries_input_and_output(self, docker: Docker, busybox: str, name: str) -> None:
        script = "read a; read b; echo $b; exit 4"
        docker.output("run", "-di", "--name", name, busybox, "sh", "-c", script)
        done = docker("attach", name, input=b"one\ntwo\n")
        assert (done.returncode, done.stdout) == (4, b"two\n")

    def test_create_then_start_attached(self, docker: Docker, busybox: str, name: str) -> None:
        docker.output("create", "-i", "--name", name, busybox, "sh", "-c", "cat; exit 6")
        done = docker("start", "-ai", name, input=b"typed")
        assert (done.returncode, done.stdout) == (6, b"typed")

    def test_stop_kill_restart(self, docker: Docker, busybox: str, name: str) -> None:
        script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
        process = docker.popen("run", "--name", name, busybox, "sh", "-c", script)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        docker.output("stop", name)
        process.communicate(timeout=30)
        assert process.returncode == 5
        docker.output("restart", name)
        assert docker.output("inspect", "-f", "{{.State.Running}}", name) == "true"
        docker.output("kill", name)
        assert docker.output("wait", name) == "137"
        done = docker("kill", name)
        assert done.returncode == 1
        assert b"is not running" in done.stderr

    def test_a_running_container_is_removed_by_force_only(
        self, docker: Docker, busybox: str, name: str
    ) -> None:
        docker.output("run", "-d", "--name", name, busybox, "sleep", "60")
        done = docker("rm", name)
        assert done.returncode == 1
        assert b"force remove" in done.stderr
        docker.output("rm", "-f", name)
        docker.output("run", "--name", name, busybox, "true")

    def test_a_name_is_taken_once(self, docker: Docker, busybox: str, name: str) -> None:
        docker.output("create", "--name", name, busybox, "true")
        done = docker("create", "--name", name, busybox, "true")
        assert done.returncode == 1
        assert b"Conflict. The container name" in done.stderr

    def test_rename(self, docker: Docker, busybox: str, name: str) -> None:
        docker.output("create", "--name", f"{name}-old", busybox, "true")
        docker.output("rename", f"{name}-old", name)
        assert docker.output("inspect", "-f", "{{.Name}}", name) == f"/{name}"

    def test_ps_filters(self, docker: Docker, busybox: str, name: str) -> None:
        label = unique("label")
        docker.output("run", "-d", "--label", label, "--name", name, busybox, "sleep", "60")
        docker.output("create", "--label", label, "--name", f"{name}-b", busybox, "true")
        try:
            names = ["ps", "--format", "{{.Names}}", "--filter", f"label={label}"]
            assert docker.output(*names) == name
            assert set(docker.output(*names, "-a").split()) == {name, f"{name}-b"}
            assert docker.output(*names, "--filter", "status=created") == f"{name}-b"
            assert docker.output(*names, "-a", "--filter", f"name=^{name}$") == name
            assert docker.output(*names, "--filter", "name=no-such").split() == []
            status = docker.output("ps", "--filter", f"name=^{name}$", "--format", "{{.Status}}")
            assert status.startswith("Up ")
        finally:
            docker("rm", f"{name}-b")

    def test_removing_removes_what_is_there_of_many(
        self, docker: Docker, busybox: str, name: str
    ) -> None:
        docker.output("create", "--name", name, busybox, "true")
        done = docker("rm", "no-such-container", name)
        assert done.returncode == 1
        assert done.stdout.decode().strip() == name
