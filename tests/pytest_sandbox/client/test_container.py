from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import (
    BadRequest,
    Client,
    Conflict,
    Container,
    NoSuchContainer,
    RunResult,
    StartFailed,
    TimedOut,
    connect,
)

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

SLEEP = ["sleep", "60"]


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


@pytest.fixture
def running(client: Client, busybox: str) -> Iterator[Container]:
    with client.container(busybox, SLEEP, init=True) as container:
        yield container.start()


def test_from_created_to_removed(client: Client, busybox: str) -> None:
    with client.container(busybox, ["sh", "-c", "echo hi; exit 4"], name="first") as container:
        assert (container.status, container.name, len(container.id)) == ("created", "first", 64)
        assert container.start() is container
        assert container.wait() == 4
        assert container.status == "exited"
        assert container.logs() == b"hi\n"
        assert container.inspect()["State"]["ExitCode"] == 4
    with pytest.raises(NoSuchContainer, match=container.id):
        container.inspect()


def test_lists(client: Client, running: Container, busybox: str) -> None:
    with client.container(busybox, SLEEP) as created:
        assert [each.id for each in client.containers()] == [running.id]
        assert {each.id for each in client.containers(all=True)} == {running.id, created.id}
        assert client.containers()[0].name == running.name


def test_found_by_name_and_by_the_beginning_of_the_id(client: Client, running: Container) -> None:
    for reference in (running.name, running.id, running.id[:12]):
        assert client.get_container(reference).id == running.id
    with pytest.raises(NoSuchContainer):
        client.get_container("nope/../nope")


def test_a_name_that_is_taken(client: Client, running: Container, busybox: str) -> None:
    with pytest.raises(Conflict, match="already in use"):
        client.container(busybox, SLEEP, name=running.name)


def test_rename(client: Client, running: Container) -> None:
    running.rename("another")
    assert running.name == "another"
    assert client.get_container("another").id == running.id


def test_exec(running: Container) -> None:
    script = "cat; echo $A >&2; pwd; id -u; exit 5"
    result = running.exec(
        ["sh", "-c", script], env={"A": "e"}, user="1000", workdir="/tmp", stdin=b"in "
    )
    assert result == RunResult(5, b"in /tmp\n1000\n", b"e\n")


def test_exec_of_what_is_not_there(running: Container) -> None:
    result = running.exec(["nope"])
    assert result.exit_code == 127
    assert b'exec: "nope": executable file not found in $PATH' in result.stderr
    assert running.exec(["/etc/passwd"]).exit_code == 126


def test_exec_is_killed_with_whoever_asked_for_it(running: Container, service: Service) -> None:
    script = (
        "import sys; from pytest_sandbox import connect;"
        "connect(autostart=False).get_container(sys.argv[1]).exec(['sh', '-c', sys.argv[2]])"
    )
    command = [sys.executable, "-c", script, running.id, "echo > /tmp/began; exec sleep 1003"]
    with subprocess.Popen(command, env=service.environ) as client:
        while running.exec(["test", "-e", "/tmp/began"]).exit_code != 0:
            pass
        client.kill()
    while b"sleep 1003" in running.exec(["ps"]).stdout:
        pass


def test_exec_that_takes_too_long(running: Container) -> None:
    result = running.exec(["sh", "-c", "echo so far; sleep 60"], timeout=0.3)
    assert result == RunResult(137, b"so far\n", b"", timed_out=True)


def test_exec_with_much_in_and_out(running: Container) -> None:
    data = bytes(range(256)) * 8000
    assert running.exec(["cat"], stdin=data).stdout == data


def test_exec_keeps_every_quick_answer(running: Container) -> None:
    assert {running.exec(["echo", "x"]).stdout for _ in range(50)} == {b"x\n"}


def test_exec_needs_a_running_container(client: Client, busybox: str) -> None:
    with client.container(busybox, SLEEP) as created, pytest.raises(Conflict):
        created.exec(["true"])


def test_logs(client: Client, busybox: str) -> None:
    script = "echo a; printf c; echo b >&2"
    with client.container(busybox, ["sh", "-c", script]) as container:
        container.start().wait()
        assert sorted(container.logs()) == sorted(b"a\nb\nc")
        assert container.logs(stderr=False) == b"a\nc"
        assert container.logs(stdout=False) == b"b\n"
        assert container.logs(tail=0) == b""
        assert container.logs(stderr=False, tail=1) == b"c"
        assert container.logs(since=time.time() + 1) == b""
        stamp, _, text = container.logs(stdout=False, timestamps=True).partition(b" ")
        assert (stamp[-1:], text) == (b"Z", b"b\n")


def test_logs_as_they_come(client: Client, busybox: str) -> None:
    script = "echo one; read line; echo two >&2"
    with (
        client.container(busybox, ["sh", "-c", script], open_stdin=True) as container,
        container.attach(stdin=True) as attachment,
        container.start().follow() as pieces,
    ):
        assert next(pieces) == (1, b"one\n")
        list(attachment.exchange(b"go on\n"))
        assert list(pieces) == [(2, b"two\n")]


def test_a_terminal(client: Client, busybox: str) -> None:
    script = "tty; echo err >&2"
    with client.container(busybox, ["sh", "-c", script], tty=True) as container:
        container.start().wait()
        name, err, rest = container.logs().split(b"\r\n")
        assert (name[:5], err, rest) == (b"/dev/", b"err", b"")


def test_stop_asks_first(client: Client, busybox: str) -> None:
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    with client.container(busybox, ["sh", "-c", script]) as container:
        container.start()
        with container.follow() as pieces:
            next(pieces)
        container.stop()
        assert container.wait() == 9
        container.stop()


def test_stop_kills_what_does_not_listen(client: Client, busybox: str) -> None:
    with client.container(busybox, SLEEP) as container:
        container.start().stop(timeout=0)
        assert container.wait() == 137


def test_kill(running: Container) -> None:
    running.kill("TERM")
    assert running.wait() == 143
    with pytest.raises(Conflict, match="not running"):
        running.kill()


def test_wait_that_takes_too_long(running: Container) -> None:
    with pytest.raises(TimedOut):
        running.wait(0.05)
    assert running.status == "running"


def test_start_that_fails(client: Client, busybox: str) -> None:
    with client.container(busybox, ["nope"]) as container:
        with pytest.raises(StartFailed) as caught:
            container.start()
        assert caught.value.exit_code == 127


def test_restart(running: Container) -> None:
    before = running.inspect()["State"]["Pid"]
    running.restart(0)
    assert running.inspect()["State"]["Pid"] != before


def test_remove_spares_what_runs_unless_forced(running: Container) -> None:
    with pytest.raises(Conflict, match="container is running"):
        running.remove(force=False)
    running.remove()


def test_with_pardons_a_container_that_has_removed_itself(client: Client, busybox: str) -> None:
    with client.container(busybox, ["true"], auto_remove=True) as container:
        container.start()


def test_ready_waits_for_a_port(client: Client, busybox: str) -> None:
    script = "sleep 0.2; exec nc -l -p 5432"
    with client.container(busybox, ["sh", "-c", script]) as container:
        assert 0 < container.start().ready(tcp=5432) < 30


def test_ready_says_why_a_container_died(client: Client, busybox: str) -> None:
    script = "echo no data directory >&2; exit 3"
    with (
        client.container(busybox, ["sh", "-c", script]) as container,
        pytest.raises(Conflict, match=r"(?s)3.*no data directory"),
    ):
        container.start().ready(tcp=5432)


def test_ready_that_takes_too_long(running: Container) -> None:
    with pytest.raises(TimedOut):
        running.ready(unix="/run/x.sock", timeout=0.1)


def test_ready_needs_one_thing_to_wait_for(running: Container) -> None:
    with pytest.raises(BadRequest, match="one of"):
        running.ready()


def test_the_mount_plan(running: Container) -> None:
    plan = running.mounts()
    assert any("/proc" in line for line in plan)
    assert all(isinstance(line, str) for line in plan)


def test_resize(client: Client, busybox: str) -> None:
    with client.container(busybox, SLEEP, tty=True) as container:
        container.start().resize(10, 20)
        assert container.exec(["stty", "size", "-F", "/dev/pts/0"]).stdout == b"10 20\n"
