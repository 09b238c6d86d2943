from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import (
    BadRequest,
    Bind,
    Client,
    NoSuchImage,
    RunResult,
    SandboxError,
    StartFailed,
    connect,
)

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


def test_exit_code_and_both_outputs(client: Client, busybox: str) -> None:
    result = client.run(busybox, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert result == RunResult(3, b"out\n", b"err\n")


def test_the_example_of_the_readme(client: Client) -> None:
    assert client.run("host", ["true"]).exit_code == 0


def test_this_interpreter_runs_in_the_host_image(client: Client) -> None:
    result = client.run("host", [sys.executable, "-c", "import pytest, sys; print(sys.prefix)"])
    assert result == RunResult(0, sys.prefix.encode() + b"\n", b"")


def test_paths_that_the_host_image_hides_can_be_shown(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shown")
    path = str(tmp_path / "file")
    assert client.run("host", ["cat", path]).exit_code == 1
    assert client.run("host", ["cat", path], show=[tmp_path]).stdout == b"shown"
    assert client.run("host", ["touch", path], show=[tmp_path]).exit_code == 1


@pytest.mark.parametrize("image", ["host", "busybox"])
def test_a_directory_that_is_copy_on_write(
    client: Client, busybox: str, tmp_path: Path, image: str
) -> None:
    (tmp_path / "file").write_text("old")
    script = f"cd {tmp_path}; printf new > file; cat file"
    bind = Bind(tmp_path, copy_on_write=True)
    result = client.run(image, ["sh", "-c", script], volumes={bind: str(tmp_path)})
    assert (result.stdout, result.stderr) == (b"new", b"")
    assert (tmp_path / "file").read_text() == "old"


def test_signals_count_from_128(client: Client, busybox: str) -> None:
    assert client.run(busybox, ["sh", "-c", "kill -9 $$"], init=True).exit_code == 137


def test_environment_directory_user_and_names(client: Client, busybox: str) -> None:
    script = "echo $A; pwd; id -u; hostname"
    result = client.run(
        busybox,
        ["sh", "-c", script],
        env={"A": "a b=c\n"},
        workdir="/made/for/it",
        user="user",
        hostname="here",
    )
    assert result.stdout == b"a b=c\n/made/for/it\n1000\nhere\n"


def test_input(client: Client, busybox: str) -> None:
    data = os.urandom(300_000)
    assert client.run(busybox, ["cat"], stdin=data).stdout == data


def test_bytes_stay_what_they_are(client: Client, busybox: str) -> None:
    result = client.run(busybox, ["sh", "-c", r"printf '\000\377\r\n'; printf '\376' >&2"])
    assert result == RunResult(0, b"\0\xff\r\n", b"\xfe")


def test_a_command_that_takes_too_long_is_killed(client: Client, busybox: str) -> None:
    result = client.run(busybox, ["sh", "-c", "echo first; sleep 60"], timeout=0.3)
    assert (result.timed_out, result.exit_code, result.stdout) == (True, 137, b"first\n")
    assert client.containers(all=True) == []


def test_a_host_directory_read_only_and_not(client: Client, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    volumes = {str(tmp_path): "/rw", tmp_path: "/ro:ro"}
    result = client.run(busybox, ["sh", "-c", "cp /ro/in /rw/out; touch /ro/x"], volumes=volumes)
    assert (tmp_path / "out").read_text() == "hello"
    assert b"Read-only file system" in result.stderr
    assert not (tmp_path / "x").exists()


def test_tmpfs_and_a_read_only_root(client: Client, busybox: str) -> None:
    result = client.run(
        busybox,
        ["sh", "-c", "touch /t/x && stat -f -c %T /t && ! touch /x"],
        read_only=True,
        tmpfs={"/t": "size=1m"},
    )
    assert (result.exit_code, result.stdout) == (0, b"tmpfs\n")


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/passwd", 126), ("/tmp", 126)])
def test_commands_that_cannot_start(client: Client, busybox: str, command: str, code: int) -> None:
    with pytest.raises(StartFailed) as caught:
        client.run(busybox, [command])
    assert caught.value.exit_code == code
    assert command in str(caught.value)
    assert client.containers(all=True) == []


def test_an_unknown_image(client: Client) -> None:
    with pytest.raises(NoSuchImage, match=r"No such image: 127\.0\.0\.1:1/nope:latest"):
        client.run("127.0.0.1:1/nope", ["true"])


@pytest.mark.parametrize("image", ["UPPER", "a:b:c", "", "a b", "../x"])
def test_a_bad_reference(client: Client, image: str) -> None:
    with pytest.raises(BadRequest):
        client.run(image, ["true"])


@pytest.mark.parametrize("target", ["/../etc", "/a/../../b"])
def test_a_mount_path_with_dots(client: Client, busybox: str, tmp_path: Path, target: str) -> None:
    with pytest.raises(BadRequest, match=r"\.\."):
        client.run(busybox, ["true"], volumes={tmp_path: target})


def test_a_source_that_is_not_there(client: Client, busybox: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="bind source path does not exist"):
        client.run(busybox, ["true"], volumes={tmp_path / "nope": "/data"})


def test_arguments_that_no_process_can_have(client: Client, busybox: str) -> None:
    with pytest.raises(SandboxError, match="NUL"):
        client.run(busybox, ["echo", "a\0b"])


def test_threads_run_at_the_same_time(client: Client, busybox: str) -> None:
    outputs: list[bytes] = []

    def run(number: int) -> None:
        outputs.append(client.run(busybox, ["echo", str(number)]).stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == [b"%d\n" % number for number in range(8)]


def test_a_command_dies_with_the_call(service: Service, client: Client, busybox: str) -> None:
    """A client that is killed while it waits leaves no container."""
    pid = os.fork()
    if pid == 0:
        with connect(service.host, autostart=False) as child:
            child.run(busybox, ["sleep", "60"])
        os._exit(1)
    with client.events(filters={"type": ["container"]}) as events:
        wait_for(events, "start", client)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        wait_for(events, "destroy", client)
    assert client.containers(all=True) == []


def wait_for(events: Iterator[dict[str, object]], action: str, client: Client) -> None:
    """The next event of this kind; a start may have been before we listened."""
    if action == "start" and client.containers():
        return
    assert any(event["Action"] == action for event in events)
