from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import Client, Container, NotFound, connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

SLEEP = ["sleep", "60"]


@pytest.fixture
def observer(service: Service) -> Iterator[Client]:
    """A client that owns nothing and is told what happens."""
    with connect(service.host, autostart=False, lease=False) as client:
        yield client


def await_destroyed(events: Iterator[dict[str, Any]], *ids: str) -> None:
    """Until all of these containers are gone."""
    waiting = set(ids)
    while waiting:
        event = next(events)
        if event["Action"] == "destroy":
            waiting.discard(event["Actor"]["ID"])


def labels(client: Client) -> list[str]:
    return [each["Label"] for each in client.call("GET", "/sandbox/leases")]


def test_what_a_client_made_goes_with_it(service: Service, observer: Client, busybox: str) -> None:
    with observer.events(filters={"type": ["container"]}) as events:
        with connect(service.host, autostart=False, label="the test") as client:
            running = client.container(busybox, SLEEP).start()
            created = client.container(busybox, SLEEP)
            volume = client.volume()
            label = f"the test (pid {os.getpid()})"
            assert label in labels(observer)
        await_destroyed(events, running.id, created.id)
    assert label not in labels(observer)
    with pytest.raises(NotFound):
        observer.get_volume(volume.name)


def test_without_a_lease_it_stays(service: Service, observer: Client, busybox: str) -> None:
    with connect(service.host, autostart=False, lease=False) as client:
        made = client.container(busybox, SLEEP)
        volume = client.volume()
    observer.get_container(made.id).remove()
    observer.get_volume(volume.name).remove()


def test_a_client_that_only_looks_holds_no_lease(service: Service, observer: Client) -> None:
    with connect(service.host, autostart=False, label="only looks") as client:
        client.containers()
        assert not any(label.startswith("only looks") for label in labels(observer))


KILLED = """
import sys, time
from pytest_sandbox import connect
client = connect()
containers = [client.container(sys.argv[1], ["sleep", "60"]).start() for _ in range(3)]
volume = client.volume()
print(*(each.id for each in containers), volume.name, flush=True)
time.sleep(60)
"""


def test_kill_9_leaves_nothing(service: Service, observer: Client, busybox: str) -> None:
    command = [sys.executable, "-c", KILLED, busybox]
    with (
        observer.events(filters={"type": ["container"]}) as events,
        subprocess.Popen(command, env=service.environ, stdout=subprocess.PIPE, text=True) as client,
    ):
        assert client.stdout is not None
        *ids, volume = client.stdout.readline().split()
        assert {each.id for each in observer.containers()} >= set(ids)
        client.kill()
        await_destroyed(events, *ids)
    assert not {each.id for each in observer.containers(all=True)} & set(ids)
    assert volume not in [each.name for each in observer.volumes()]


def in_child(work: Any) -> int:
    """The exit code of a forked child that runs `work` and then dies without any clean-up."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_has_a_lease_of_its_own(
    service: Service, observer: Client, busybox: str
) -> None:
    with connect(service.host, autostart=False, label="forks") as client:
        ours = client.container(busybox, SLEEP).start()
        read, write = os.pipe()

        def work() -> None:
            theirs = client.container(busybox, SLEEP).start()
            os.write(write, theirs.id.encode())
            assert {each.id for each in client.containers()} >= {ours.id, theirs.id}
            assert len([each for each in labels(client) if each.startswith("forks")]) == 2

        with observer.events(filters={"type": ["container"]}) as events:
            assert in_child(work) == 0
            await_destroyed(events, os.read(read, 64).decode())
        os.close(read)
        os.close(write)
        assert ours.status == "running"


def test_a_child_that_closes_the_client_leaves_the_parents_lease_alone(
    service: Service, busybox: str
) -> None:
    with connect(service.host, autostart=False) as client:
        ours = client.container(busybox, SLEEP).start()
        assert in_child(client.close) == 0
        assert ours.status == "running"


def test_a_child_that_lives_on_does_not_keep_the_lease(
    service: Service, observer: Client, busybox: str
) -> None:
    go_on, told = os.pipe()
    with observer.events(filters={"type": ["container"]}) as events:
        client = connect(service.host, autostart=False)
        ours = client.container(busybox, SLEEP).start()
        pid = os.fork()
        if pid == 0:
            os.read(go_on, 1)
            os._exit(0)
        client.close()
        await_destroyed(events, ours.id)
    os.write(told, b"x")
    os.waitpid(pid, 0)
    os.close(go_on)
    os.close(told)


def test_subprocesses_inherit_nothing(service: Service, busybox: str) -> None:
    with connect(service.host, autostart=False) as client:
        client.container(busybox, SLEEP)
        script = "import os; print(os.listdir('/proc/self/fd'))"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, close_fds=False)
        inherited = {int(fd) for fd in eval(done.stdout)}
        sockets = {fd for fd in inherited if is_socket(fd)}
        assert not sockets & our_sockets(client)


def is_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


def our_sockets(client: Client) -> set[int]:
    held = client._lease._held
    assert held is not None
    return {held[1].socket.fileno(), *(each.socket.fileno() for each in client._transport._idle)}


def test_the_lease_is_opened_again_when_the_service_was_away(own_service: Service) -> None:
    with connect(own_service.host, autostart=False) as client:
        first = client.container("host", SLEEP).start()
        own_service.stop()
        own_service.start()
        second = client.container("host", SLEEP).start()
        assert [each.id for each in client.containers(all=True)] == [second.id]
        with pytest.raises(NotFound):
            first.inspect()
        assert len(client.call("GET", "/sandbox/leases")) == 1


def test_a_dropped_client_takes_its_containers_along(
    service: Service, observer: Client, busybox: str
) -> None:
    def forgetful() -> str:
        made: Container = connect(service.host, autostart=False).container(busybox, SLEEP).start()
        return made.id

    with observer.events(filters={"type": ["container"]}) as events:
        await_destroyed(events, forgetful())
