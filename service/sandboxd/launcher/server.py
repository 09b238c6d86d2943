"""The fork server: single-threaded, standard library only, pid 1 above all containers.

It makes warm slots and joiners, opens sockets in network namespaces of containers, and reports
every end. When its socket to the service closes it exits, and the kernel kills everything that it
ever started. `main` is started by `client.spawn` in a fresh interpreter.
"""

from __future__ import annotations

import gc
import os
import select
import socket
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, NoReturn

from sandboxd.launcher import joiner, kernel_mounts, profile, slot, twin, wire
from sandboxd.launcher.spec import HostRoot
from sandboxd.linux import capabilities, loopback, namespaces
from sandboxd.linux import process as own_process
from sandboxd.linux.pidfd import reap

_QUIET: Final = 0.004
"""Seconds without a message after which is done what nobody may wait for."""
_LOOKS: Final = 7
"""How often such a pause looks for useless twins, each time four times as long after the last."""
_LEFT_MAX: Final = 16
"""Ended containers whose mounts wait for such a pause."""


class Child(NamedTuple):
    """A process that the fork server made; the service knows it by its token."""

    token: int
    mounts: int | None = None
    """Its mount namespace, which holds all that is mounted there beyond the process's end."""
    joins: bool = False
    """Whether it starts another process, which keeps the token."""


class ForkServer:
    """One loop over the service's socket and a pidfd for each child."""

    def __init__(
        self,
        service: socket.socket,
        places: tuple[str, str],
        maps: tuple[str, str],
        network: Literal["own", "host"],
    ) -> None:
        self._service = service
        self._places = places
        self._uid_map, self._gid_map = maps
        self._single_id = maps[0].split() == ["0", "0", "1"]
        self._shares_network = network == "host"
        self._flags = namespaces.CONTAINER
        if self._shares_network:
            self._flags &= ~namespaces.CLONE_NEWNET
        self._own_net = namespaces.open_namespace("self", "net")
        self._poll = select.epoll()
        self._children: dict[int, Child] = {}
        self._left: list[int] = []
        self._has_twins = twin.possible()
        self._twins: dict[int, int] = {}
        """A pipe that hangs up once a slot has executed its command, to the pidfd of its twin."""
        self._buried: set[int] = set()
        self._looks = _LOOKS
        """Pauses since the last message: a slot may execute its command only after one of them."""
        self._heirs: dict[int, int] = {}
        """Token to pidfd of what a joiner that still lives has started."""
        self._orphaned: set[int] = set()
        """Tokens of joiners that started something and ended; the service will name it."""

    def serve(self) -> NoReturn:
        service = self._service.fileno()
        self._poll.register(service, select.EPOLLIN)
        while True:
            ready = self._poll.poll(self._patience())
            if not ready or len(self._left) > _LEFT_MAX:
                self._clear_away()
            for fd, _ in ready:
                if fd == service:
                    self._answer()
                elif fd in self._buried:
                    self._buried.remove(fd)
                    self._taken(fd)
                else:
                    self._reap(fd)

    def _patience(self) -> float | None:
        """Seconds to wait for a message before `_clear_away`; None where nothing is to be done."""
        if self._left:
            return _QUIET
        if self._twins and self._looks < _LOOKS:
            return _QUIET * float(4**self._looks)
        return None

    def _tell(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Send to the service; without one there is nothing left to do here."""
        try:
            wire.send(self._service, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _answer(self) -> None:
        self._looks = 0
        try:
            message, fds = wire.receive(self._service)
        except (EOFError, ConnectionResetError):
            os._exit(0)
        try:
            kind, token, *rest = message
            if kind == "slot":
                self._make_slot(token, *rest, network=fds[0] if fds else None)
            elif kind == "joiner":
                self._make_joiner(token)
            elif kind == "adopt":
                self._adopt(token, os.dup(fds[0]))
            elif kind == "socket":
                self._open_socket(token, fds[0], *rest)
        except OSError as error:
            self._tell(("failed", message[1], error.errno or 0, str(error)))
        finally:
            for fd in fds:
                os.close(fd)

    def _make_slot(
        self,
        token: int,
        kind: slot.SlotKind,
        host: tuple[Any, ...] | None = None,
        *,
        network: int | None = None,
    ) -> None:
        root = None if host is None else HostRoot(*host)
        work = slot.SlotWork(kind, *self._places, self._single_id, root)
        birth, told = wire.pair()
        ours, theirs = wire.pair()
        lives, alive = os.pipe2(os.O_CLOEXEC)
        given = [theirs.fileno(), alive]
        try:
            if network is None:
                if self._shares_network:
                    given.append(kernel_mounts.host_sys())
                pid, pidfd, twin_pidfd = self._fork_slot(self._flags, birth, told)
            else:
                pid, pidfd, twin_pidfd = self._fork_inside(network, given, birth, told)
            if pid == 0:
                birth.detach()
                slot.begin_in_child(told, work)
            self._keep(pidfd, Child(token))
            self._children[pidfd] = Child(token, namespaces.open_namespace(pid, "mnt"))
            if twin_pidfd >= 0:
                self._twins[os.dup(lives)] = twin_pidfd
            self._write_maps(pid)
            wire.send(birth, ("mapped",), given)
            self._tell(("child", token), [pidfd, ours.fileno()])
        finally:
            for end in (birth, told, ours, theirs):
                end.close()
            for fd in (lives, *given[1:]):
                os.close(fd)

    def _fork_slot(
        self, flags: int, birth: socket.socket, told: socket.socket
    ) -> tuple[int, int, int]:
        if self._has_twins:
            return twin.fork(flags, birth, told)
        return (*namespaces.fork_into(flags), -1)

    def _fork_inside(
        self, network: int, given: list[int], birth: socket.socket, told: socket.socket
    ) -> tuple[int, int, int]:
        """A slot in a network namespace that is there already; `given` gets a sysfs(5) of it.

        The slot's own user namespace lies beside the one that owns the network: setns(2) and a
        mount of sysfs are for the fork server, in the user namespace above both.
        """
        forked = (-1, -1, -1)
        namespaces.setns(network, namespaces.CLONE_NEWNET)
        try:
            loopback.bring_up()
            loopback.open_low_ports()
            given.append(kernel_mounts.new_sys())
            forked = self._fork_slot(namespaces.CONTAINER & ~namespaces.CLONE_NEWNET, birth, told)
        finally:
            if forked[0] != 0:
                namespaces.setns(self._own_net, namespaces.CLONE_NEWNET)
        return forked

    def _write_maps(self, pid: int) -> None:
        for name, text in (("uid_map", self._uid_map), ("gid_map", self._gid_map)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, text.encode())
            os.close(fd)

    def _make_joiner(self, token: int) -> None:
        ours, theirs = wire.pair()
        try:
            pid, pidfd = namespaces.fork_into()
            if pid == 0:
                ours.close()
                joiner.run_in_child(theirs, self._flags, single_id=self._single_id)
            self._keep(pidfd, Child(token, joins=True))
            self._tell(("child", token), [pidfd, ours.fileno()])
        finally:
            ours.close()
            theirs.close()

    def _adopt(self, token: int, pidfd: int) -> None:
        """A joiner has started this process: it is ours to reap once the joiner has ended."""
        if token in self._orphaned:
            self._orphaned.remove(token)
            self._keep(pidfd, Child(token))
        else:
            self._heirs[token] = pidfd

    def _open_socket(self, token: int, target: int, family: int, kind: int) -> None:
        if self._shares_network:
            made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        else:
            namespaces.setns(target, namespaces.CLONE_NEWNET)
            try:
                made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            finally:
                namespaces.setns(self._own_net, namespaces.CLONE_NEWNET)
        with made:
            self._tell(("opened", token), [made.fileno()])

    def _keep(self, pidfd: int, child: Child) -> None:
        self._children[pidfd] = child
        self._poll.register(pidfd, select.EPOLLIN)

    def _taken(self, pidfd: int) -> int:
        """The exit code of a process that has ended, or minus a signal; its pidfd is closed."""
        code = reap(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        return code

    def _reap(self, pidfd: int) -> None:
        code = self._taken(pidfd)
        child = self._children.pop(pidfd)
        if not child.joins or code not in (joiner.LEFT, joiner.DONE):
            self._tell(("exit", child.token, code))
        elif code == joiner.LEFT:
            self._leave(child.token)
        if child.mounts is not None:
            self._left.append(child.mounts)

    def _leave(self, token: int) -> None:
        """A joiner ended before what it has started."""
        if token in self._heirs:
            self._keep(self._heirs.pop(token), Child(token))
        else:
            self._orphaned.add(token)

    def _clear_away(self) -> None:
        """Unmount what ended containers had mounted; kill the twins of what is no slot any more."""
        self._looks += 1
        while self._left:
            os.close(self._left.pop())
        hung_up = select.poll()
        for lives in self._twins:
            hung_up.register(lives, 0)
        for lives, _ in hung_up.poll(0):
            pidfd = self._twins.pop(lives)
            os.close(lives)
            self._buried.add(pidfd)
            self._poll.register(pidfd, select.EPOLLIN)
            twin.bury(pidfd)


def main(
    service_fd: int,
    store: str,
    memory: str,
    uid_map: str,
    gid_map: str,
    network: Literal["own", "host"] = "own",
) -> NoReturn:
    """Entry of the fork server's interpreter; `store` and `memory` as in `Launcher.spawn`.

    `network`: whether slots unshare theirs, or share this process's.
    """
    own_process.set_name("sandbox-launch")
    own_process.prctl(own_process.PR_SET_DUMPABLE, 0)
    os.umask(0)
    capabilities.last_cap()
    profile.prepared_filter(frozenset(profile.DEFAULT_CAPABILITIES))
    gc.disable()
    gc.freeze()
    service = socket.socket(fileno=service_fd)
    ForkServer(service, (store, memory), (uid_map, gid_map), network).serve()
