"""The process that sees what the network of the sandboxes is asked for; each pytest has one.

It answers for a system call filter (each connect(2) waits until it is noted down, and goes on as it
stands) and for the name server of each sandbox (all lookups are refused). Started lean, it enters
the sandboxes' user namespace; it ends when the last other end of its socket is closed.

The protocol: sequenced packets of JSON. It gets `{"listener"}` and `{"shell"}` with a descriptor,
the latter answered by `{"ready"}`; `{"blind"}`, the reason why there is no listener; and
`{"take": [namespaces]}`, answered by `{"seen", "rest", "blind"}`. By itself it only says `{}`, once
after each take: there is something to take.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import sys
from typing import Any, Final

from pytest_sandbox.hermetic.escapes import addresses, connection_filter, lookups
from sandboxd.linux import namespaces, seccomp_notify
from sandboxd.linux.pidfd import pid_of, pidfd_open
from sandboxd.linux.sock_diag import ListenerTable

_MOST: Final = 200
"""Different things that are kept of one sandbox until they are taken."""
_NAME_SERVER: Final = ("127.0.0.1", 53)
_QUERY_MAX: Final = 1500
_PROTOCOLS: Final[dict[int, str]] = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}
_CACHES: Final = frozenset({"/run/nscd/socket", "/var/run/nscd/socket"})
"""The C library asks the name service cache at every turn."""


class Watcher:
    """One event loop; `pardoned` are paths of unix sockets that tests are meant to reach."""

    def __init__(self, control: socket.socket, pardoned: frozenset[str]) -> None:
        self._control, self._pardoned = control, pardoned | _CACHES
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._listeners: set[int] = set()
        self._servers: dict[int, tuple[socket.socket, int]] = {}
        """Name servers by descriptor: the socket, and its network namespace."""
        self._tables: dict[int, ListenerTable] = {}
        """Network namespace to what looks for listeners there."""
        self._sandboxes: dict[int, socket.socket] = {}
        """pidfd to the name server that goes with it."""
        self._seen: dict[int, dict[tuple[str, ...], None]] = {}
        """Namespace to what was seen there, in order."""
        self._told = self._entered = False
        self._blind = ""

    def run(self) -> None:
        """Until nobody can ask any more."""
        while True:
            for fd, events in self._poll.poll():
                if fd in self._servers:
                    self._look_up(*self._servers[fd])
                elif fd in self._listeners:
                    self._hear(fd, events)
                elif fd in self._sandboxes:
                    self._forget(fd)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Take one request; whether there was one."""
        data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        if not data:
            return False
        request = json.loads(data)
        if "take" in request:
            self._give(request["take"])
        elif "blind" in request:
            self._blind = request["blind"]
            self._tell()
        elif "listener" in request:
            self._listeners.add(fds[0])
            self._poll.register(fds[0], select.EPOLLIN)
        else:
            self._answer(ready=self._serve_names(fds[0]))
        return True

    def _answer(self, **message: Any) -> None:
        self._control.send(json.dumps(message).encode())

    def _give(self, wanted: list[int]) -> None:
        seen = [event for ns in wanted for event in self._seen.pop(ns, ())]
        self._told = bool(self._seen)
        self._answer(seen=seen, rest=self._told, blind=self._blind)

    def _note(self, namespace: int, *event: str) -> None:
        seen = self._seen.setdefault(namespace, {})
        if event in seen or len(seen) >= _MOST:
            return
        seen[event] = None
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._answer()

    # connections

    def _hear(self, listener: int, events: int) -> None:
        if not events & select.EPOLLIN:
            self._poll.unregister(listener)
            self._listeners.discard(listener)
            os.close(listener)
            return
        try:
            call = seccomp_notify.receive(listener)
            try:
                self._consider(listener, call)
            finally:
                seccomp_notify.let_continue(listener, call)
        except OSError:
            return  # it was killed, or another thread of it has changed what is read here

    def _consider(self, listener: int, call: seccomp_notify.Notification) -> None:
        at, length = (
            call.arguments[1:3] if call.number == connection_filter.CONNECT else call.arguments[4:6]
        )
        length = min(length & 0xFFFFFFFF, addresses.LONGEST)
        address = addresses.parse(seccomp_notify.read_memory(call.pid, at, length))
        if address is None or not seccomp_notify.still_waits(listener, call):
            return
        protocol = self._protocol(call, address)
        if protocol is not None:
            outcome = "refused" if address.is_loopback else ""
            sandbox, process = _namespace(call.pid, "pid"), _name(call.pid)
            self._note(sandbox, protocol, str(address), outcome, process)

    def _protocol(
        self, call: seccomp_notify.Notification, address: addresses.Address
    ) -> str | None:
        """What is spoken, or None where the address is none that the test should not reach."""
        if address.family == socket.AF_UNIX:
            return "unix" if self._is_of_host(address.host) else None
        kind = _socket_type(call.pid, call.arguments[0] & 0xFFFFFFFF)
        protocol = _PROTOCOLS.get(kind, "ip")
        if not address.is_loopback:
            # Port 0 is how the C library finds out which address is to be preferred: RFC 6724.
            return protocol if address.port or protocol != "udp" else None
        return protocol if protocol == "tcp" and not self._is_served(call.pid, address) else None

    def _is_served(self, pid: int, address: addresses.Address) -> bool:
        """Whether somebody listens there; where one look-up finds nobody, all are looked at."""
        table = self._tables.get(_namespace(pid, "net"))
        if table is not None and table.has(address.family, address.host, address.port):
            return True
        return addresses.somebody_listens(pid, address.port)

    def _is_of_host(self, path: str) -> bool:
        try:
            found = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return False
        return found and path.startswith("/") and path not in self._pardoned

    # names

    def _serve_names(self, pidfd: int) -> bool:
        """Whether the sandbox has a name server now, for as long as its pid 1 lives.

        Sandboxes that share a network share the port, too: socket(7), SO_REUSEPORT.
        """
        server = None
        try:
            pid = pid_of(pidfd)
            self._enter_above(pid)
            namespaces.setns(pidfd, namespaces.CLONE_NEWNET)
            network = _namespace(pid, "net")
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            server.setblocking(False)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(_NAME_SERVER)
        except OSError:
            if server is not None:
                server.close()
            os.close(pidfd)
            return False
        self._servers[server.fileno()] = (server, network)
        self._sandboxes[pidfd] = server
        if network not in self._tables:
            self._tables[network] = ListenerTable()
        self._poll.register(server, select.EPOLLIN)
        self._poll.register(pidfd, select.EPOLLIN)
        return True

    def _enter_above(self, pid: int) -> None:
        """Into the user namespace that the sandboxes' own ones lie in: once there, all of them
        may be entered."""
        if not self._entered:
            own = namespaces.open_namespace(pid, "user")
            above = namespaces.parent_namespace(own)
            namespaces.setns(above, namespaces.CLONE_NEWUSER)
            os.close(above)
            os.close(own)
            self._entered = True

    def _forget(self, pidfd: int) -> None:
        """The sandbox has ended: its network goes with the last descriptor that leads there."""
        server = self._sandboxes.pop(pidfd)
        self._poll.unregister(pidfd)
        self._poll.unregister(server)
        _, network = self._servers.pop(server.fileno())
        server.close()
        os.close(pidfd)
        if all(network != each for _, each in self._servers.values()):
            self._tables.pop(network).close()

    def _look_up(self, server: socket.socket, network: int) -> None:
        try:
            query, asker = server.recvfrom(_QUERY_MAX)
            name, end = lookups.question(query)
            self._note(network, "name", name, "", "")
            server.sendto(lookups.refusal(query, end), asker)
        except (OSError, ValueError):
            return  # no query, or nobody waits for the answer


def _namespace(pid: int, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", errors="replace") as comm:
        return comm.read().rstrip("\n")


def _socket_type(thread: int, fd: int) -> int:
    """SO_TYPE of another process's socket; its descriptor is copied and closed again."""
    pidfd = pidfd_open(_process_of(thread))
    try:
        with socket.socket(fileno=seccomp_notify.duplicate(pidfd, fd)) as copy:
            return copy.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    finally:
        os.close(pidfd)


def _process_of(thread: int) -> int:
    with open(f"/proc/{thread}/status") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line[5:])
    raise ProcessLookupError(thread)


def main() -> None:
    """argv: the descriptor of the socket, then paths of unix sockets that are no escapes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    Watcher(control, frozenset(sys.argv[2:])).run()
