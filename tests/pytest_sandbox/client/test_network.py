"""Containers that join a network namespace: another container's, and one that a process made."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect
from pytest_sandbox.errors import CannotEnforce, Conflict, Forbidden, NotFound

if TYPE_CHECKING:
    from pytest_sandbox import Client
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

_PEER = """
import socket, sys
from sandboxd.linux import loopback, namespaces
namespaces.setns(int(sys.argv[1]), namespaces.CLONE_NEWUSER)
namespaces.unshare(namespaces.CLONE_NEWNET)
loopback.bring_up()
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
connection, _ = listening.accept()
connection.sendall(b"hello\\n")
connection.close()
port = int(sys.stdin.readline())
print(socket.create_connection(("127.0.0.1", port)).makefile().readline().strip(), flush=True)
"""


@pytest.fixture
def client(service: Service, busybox: str) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


@contextmanager
def peer(namespace: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process in a network of its own below the user namespace, and a port on which it says
    hello; then it connects to the port that its standard input names."""
    command = [sys.executable, "-c", _PEER, str(namespace)]
    with subprocess.Popen(
        command,
        pass_fds=[namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


def test_a_container_and_a_process_meet_on_localhost(client: Client) -> None:
    namespace = client.user_namespace()
    with peer(namespace) as (process, port):
        os.close(namespace)
        mode = f"pid:{process.pid}"
        heard = client.run(
            "busybox", ["sh", "-c", f"nc 127.0.0.1 {port}; ls /sys/class/net"], network=mode
        )
        assert heard.stdout.decode().split() == ["hello", "lo"]
        # A port below 1024, and an exec beside it.
        with client.container(
            "busybox", ["sh", "-c", "echo ours | nc -l -p 80"], network=mode
        ) as server:
            server.start().ready(tcp=80)
            assert b":0050" in server.exec(["cat", "/proc/net/tcp6"]).stdout
            assert process.stdin is not None
            assert process.stdout is not None
            print(80, file=process.stdin, flush=True)
            assert process.stdout.readline() == "ours\n"
        assert client.run("busybox", ["cat", "/proc/net/tcp"]).stdout.count(b"\n") == 1


def test_a_container_joins_another_one(client: Client) -> None:
    with client.container("busybox", ["nc", "-l", "-p", "5432", "-e", "echo", "hello"]) as server:
        with client.container("busybox", ["true"], network=f"container:{server.id[:12]}") as early:
            with pytest.raises(Conflict, match="non running container"):
                early.start()
            assert early.inspect()["HostConfig"]["NetworkMode"] == f"container:{server.id}"
        server.start().ready(tcp=5432)
        mode = f"container:{server.name}"
        heard = client.run("busybox", ["nc", "127.0.0.1", "5432"], network=mode)
        assert heard.stdout == b"hello\n"
        own = client.run("busybox", ["nc", "127.0.0.1", "5432"])
        assert own.exit_code == 1


def test_who_may_not_be_joined(client: Client) -> None:
    with pytest.raises(NotFound, match="No such container"):
        client.container("busybox", ["true"], network="container:no-such")
    with pytest.raises(NotFound, match="No such process"):
        client.run("busybox", ["true"], network=f"pid:{2**22 + 1}")
    service = client.status()["Pid"]
    for pid in (1, os.getpid(), service, *_children(service)):
        with pytest.raises(Forbidden, match="join the network of process"):
            client.run("busybox", ["true"], network=f"pid:{pid}")
    with pytest.raises(CannotEnforce, match=r"sysctl 'net\."):
        client.run("busybox", network="pid:2", sysctls={"net.ipv4.ip_forward": "1"})


def test_a_network_that_is_not_below_the_services_user_namespace_is_refused(client: Client) -> None:
    command = ["unshare", "-r", "-n", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(Forbidden, match=r"out of the service's reach"):
                client.run("busybox", ["true"], network=f"pid:{process.pid}")
        finally:
            process.kill()


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_the_network_of_this_machine(client: Client, busybox: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).close()"
        interfaces = sorted(os.listdir("/sys/class/net"))
        with client.container("host", ["sleep", "60"], network="host", init=True) as k:
            k.start()
            joined = k.exec([sys.executable, "-c", script])
            shown = k.exec(["ls", "/sys/class/net"]).stdout.decode().split()
            assert k.inspect()["HostConfig"]["NetworkMode"] == "host"
            assert k.ready(tcp=port) >= 0
        alone = client.run(busybox, ["cat", "/etc/resolv.conf"], network="host")
    assert (joined.exit_code, joined.stderr) == (0, b"")
    assert sorted(shown) == interfaces
    assert alone.stdout.strip() == Path("/etc/resolv.conf").read_bytes().strip()
    with pytest.raises(CannotEnforce, match=r"net\.ipv4"):
        client.run(busybox, ["true"], network="host", sysctls={"net.ipv4.ip_forward": "1"})
