"""The service's end of the fork server: warm slots on hand, starts, execs, ends.

A slot's own socket and pidfd are handed to the service when the slot is made, so that a start is
one message from the service straight to the slot; the fork server learns of it only by the exit.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections import deque
from typing import Final, NoReturn, Self

from sandboxd.errors import HostLacks, StartFailed, Unavailable
from sandboxd.launcher import dialogue, host_network, wire
from sandboxd.launcher.joining import Joining
from sandboxd.launcher.pool import Pool
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.rootfs import is_below
from sandboxd.launcher.running import Running, Stdio
from sandboxd.launcher.spec import ContainerSpec, HostRoot, Mount, Process
from sandboxd.linux import loopback, mount, namespaces, pidfd
from sandboxd.linux.idmap import IdMap

__all__ = ["Launcher", "Running", "Stdio"]

_DEFAULTS: Final = frozenset(DEFAULT_CAPABILITIES)
_OUTER: Final = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS
_ENTRY: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from sandboxd.launcher.server import main; main(int(sys.argv[2]), *sys.argv[3:])"
)

_WARM_JOINERS: Final = 4

HOST_NETWORK: Final = -1
"""In place of a descriptor: the network of this machine."""


class Launcher:
    """The only holder of the fork server's socket; use from one event loop."""

    def __init__(
        self, server: socket.socket, descriptor: int, warm: int, joiners: int = _WARM_JOINERS
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._server = server
        self._pidfd = descriptor
        self._next_token = 0
        self._image_slots = Pool(warm, lambda pool: self._order(pool, "slot", "image"))
        self._any_slots = Pool(0, lambda pool: self._order(pool, "slot", "any"))
        self._joiners = Pool(joiners, lambda pool: self._order(pool, "joiner"))
        self._host_slots: Pool | None = None
        self._host: HostRoot | None = None
        self._host_target = warm
        self._orders: dict[int, Pool] = {}
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._running: dict[int, Running] = {}
        self._outbox: deque[tuple[wire.Message, tuple[int, ...]]] = deque()
        self._arguments: host_network.Arguments | None = None
        self._joining = Joining(self._joiners, self._running, self._orders, self._adopt)
        self._beside: Launcher | None = None
        """Whose containers are in this machine's network."""
        self.lost: asyncio.Future[str] = loop.create_future()

    @classmethod
    async def spawn(cls, idmap: IdMap, *, store: str, memory: str, warm: int = 4) -> Self:
        """Start the fork server in namespaces of its own and order the first warm slots.

        The calling process must be in the outer user namespace. Layers and upper directories lie
        in `store`, the state root, where an empty directory `stage` must exist, and in `memory`,
        which may be a mount but not below `store`.
        Raises HostLacks when a slot cannot be made.
        """
        ours, theirs = wire.pair()
        arguments = (store, memory, *idmap.nested())
        try:
            pid, descriptor = namespaces.fork_into(_OUTER)
            if pid == 0:
                _become_server_in_child(theirs, arguments)
        except OSError as error:
            raise HostLacks("start the launcher", str(error), "sandboxctl doctor") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        launcher = cls(ours, descriptor, warm)
        launcher._arguments = arguments
        launcher._loop.add_reader(ours, launcher._on_readable)
        launcher._image_slots.refill()
        launcher._joiners.refill()
        return launcher

    @property
    def warm_slots(self) -> int:
        return len(self._image_slots) + (0 if self._host_slots is None else len(self._host_slots))

    @property
    def pid(self) -> int:
        """The fork server's pid, as the service sees it."""
        return pidfd.pid_of(self._pidfd)

    async def start(
        self, spec: ContainerSpec, stdio: Stdio, *, network: int | None = None
    ) -> Running:
        """Run the first process of a container; returns once execve(2) has succeeded.

        `network` is a descriptor of the network namespace to join, or HOST_NETWORK. The descriptors
        are duplicated. Raises StartFailed with exit_code 127, 126 or 125.
        """
        if network == HOST_NETWORK:
            return await self._in_host_network().start(spec, stdio)
        if network is not None:
            return await self._begin(await self._slot_inside(network), spec, stdio)
        spec, pool, shown = self._choose_slots(spec)
        try:
            return await self._begin(await pool.take(), spec, stdio)
        finally:
            for fd in shown:
                os.close(fd)

    async def exec(
        self, target: Running, process: Process, stdio: Stdio, cgroups: tuple[str, ...] = ()
    ) -> Running:
        """Run another process inside a running container. Raises StartFailed like `start`."""
        if self._beside is not None and self._beside.holds(target):
            return await self._beside.exec(target, process, stdio, cgroups)
        return await self._joining.exec(target, process, stdio, cgroups)

    async def net_socket(self, target: Running, family: int, kind: int) -> socket.socket:
        """A fresh socket inside the network namespace of a running container."""
        if self._beside is not None and self._beside.holds(target):
            return await self._beside.net_socket(target, family, kind)
        token = self._token()
        opened: asyncio.Future[int] = self._loop.create_future()
        self._answers[token] = opened
        self._post(("socket", token, int(family), int(kind)), (target.pidfd,))
        return socket.socket(fileno=await opened)

    async def close(self) -> None:
        """End the fork server, and with it every process that it started; again is no error."""
        if self._beside is not None:
            await self._beside.close()
        if self._pidfd < 0:
            return
        self._loop.remove_reader(self._server)
        self._loop.remove_writer(self._server)
        self._server.close()
        self._end_pools("the service is stopping")
        await dialogue.readable(self._pidfd)
        pidfd.reap(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def holds(self, target: Running) -> bool:
        """Whether it was started here."""
        return self._running.get(target.token) is target

    def _in_host_network(self) -> Launcher:
        """The launcher of containers in this machine's network, started when first asked for."""
        if self._beside is None or self._beside.lost.done():
            assert self._arguments is not None, "`spawn` made this launcher"
            ours, theirs = wire.pair()
            try:
                descriptor = pidfd.pidfd_open(host_network.start(theirs.fileno(), self._arguments))
            except OSError as error:
                ours.close()
                raise HostLacks("start a launcher", str(error), "sandboxctl doctor") from None
            finally:
                theirs.close()
            ours.setblocking(False)
            self._beside = Launcher(ours, descriptor, 0, joiners=1)
            self._loop.add_reader(ours, self._beside._on_readable)
        return self._beside

    def _choose_slots(self, spec: ContainerSpec) -> tuple[ContainerSpec, Pool, list[int]]:
        """The pool for a specification, and descriptors of what the image `host` shows besides."""
        host = spec.rootfs.host
        if spec.sysctls or not _DEFAULTS.issuperset(spec.process.capabilities):
            return spec, self._any_slots, []
        if host is None:
            return spec, self._image_slots, []
        if spec.rootfs.upper is not None or _hides_what_it_shows(host):
            return spec, self._any_slots, []
        pool = self._slots_for(host._replace(show=()))
        extra = [_show(path) for path in host.show]
        mounts = tuple(each for each in extra if each is not None)
        fds = [each.source_fd for each in mounts if each.source_fd is not None]
        return spec._replace(mounts=(*mounts, *spec.mounts)), pool, fds

    def _slots_for(self, host: HostRoot) -> Pool:
        """The pool of slots that assembled this root ahead; another root replaces it."""
        if self._host_slots is None or self._host != host:
            if self._host_slots is not None:
                self._host_slots.close(HostLacks("start on host", "the host's mounts changed"))
            plain = tuple(host)
            self._host = host
            self._host_slots = Pool(
                self._host_target, lambda pool: self._order(pool, "slot", "host", plain)
            )
        return self._host_slots

    async def _slot_inside(self, network: int) -> Running:
        """A slot made for one start: those that wait warm have unshared their network already."""
        once = Pool(0, lambda pool: self._order(pool, "slot", "any", fds=(network,)))
        try:
            return await once.take()
        finally:
            once.close(Unavailable("launcher", "nobody waits any more"))

    async def _begin(self, slot: Running, spec: ContainerSpec, stdio: Stdio) -> Running:
        """Tell a slot what to become; the end of its socket is the news that it did."""
        try:
            plain, fds = spec.to_wire()
            dialogue.move_to_cgroups(slot, spec.cgroups)
            dialogue.tell(slot, ("start", plain), (*stdio, *fds))
            while (answer := await dialogue.answer(slot)) is not None:
                dialogue.take(slot, answer, spec.process)
        except BaseException:
            self._running.pop(slot.token, None)
            dialogue.abandon(slot)
            raise
        return slot

    def _adopt(self, command: Running) -> None:
        """The fork server tells of a command's end from now on."""
        if not self.lost.done():
            self._post(("adopt", command.token), (command.pidfd,))

    def _order(self, pool: Pool, kind: str, *details: object, fds: tuple[int, ...] = ()) -> None:
        token = self._token()
        self._orders[token] = pool
        self._post((kind, token, *details), fds)

    def _token(self) -> int:
        self._next_token += 1
        return self._next_token

    def _post(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        if self.lost.done():
            raise Unavailable("launcher", self.lost.result(), "sandboxctl service start")
        # A copy of each descriptor: the message may wait while its owner closes the original.
        self._outbox.append((message, tuple(os.dup(fd) for fd in fds)))
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            message, fds = self._outbox[0]
            try:
                wire.send(self._server, message, fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._loop.add_writer(self._server, self._flush)
                return
            except OSError as error:
                self._lose(str(error))
                return
            self._outbox.popleft()
            for fd in fds:
                os.close(fd)
        self._loop.remove_writer(self._server)

    def _on_readable(self) -> None:
        for _ in range(64):
            try:
                message, fds = wire.receive(self._server)
            except BlockingIOError:
                return
            except (EOFError, OSError) as error:
                self._lose(str(error))
                return
            self._handle(message, fds)

    def _handle(self, message: wire.Message, fds: list[int]) -> None:
        kind, token, *rest = message
        if kind == "child":
            self._on_child(token, *fds)
        elif kind == "exit":
            self._on_exit(token, *rest)
        elif kind == "opened":
            self._on_opened(token, fds[0])
        elif kind == "failed":
            self._on_failure(token, *rest)

    def _on_child(self, token: int, descriptor: int, control_fd: int) -> None:
        child = Running(token, descriptor, socket.socket(fileno=control_fd))
        self._running[token] = child
        self._orders[token].put(child)

    def _on_opened(self, token: int, descriptor: int) -> None:
        answer = self._answers.pop(token)
        if answer.done():
            os.close(descriptor)
        else:
            answer.set_result(descriptor)

    def _on_exit(self, token: int, code: int) -> None:
        child = self._running.pop(token, None)
        pool = self._orders.pop(token, None)
        if child is None:
            return
        if pool is not None and pool.discard(child):
            child.close()
        child.finish(code)

    def _on_failure(self, token: int, number: int, text: str) -> None:
        if token in self._answers:
            answer = self._answers.pop(token)
            if not answer.done():
                answer.set_exception(StartFailed("open a socket in the container", text))
            return
        error = HostLacks("make namespaces for a container", text, "sandboxctl doctor")
        self._orders.pop(token).fail(error)

    def _lose(self, why: str) -> None:
        if self.lost.done():
            return
        self._loop.remove_reader(self._server)
        self._loop.remove_writer(self._server)
        reason = f"the fork server ended ({why or 'no reason given'})"
        self.lost.set_result(reason)
        self._end_pools(reason)
        for child in list(self._running.values()):
            child.finish(-9)
        self._running.clear()

    def _end_pools(self, reason: str) -> None:
        error = Unavailable("launcher", reason, "sandboxctl service start")
        pools = (self._image_slots, self._any_slots, self._host_slots, self._joiners)
        for pool in pools:
            if pool is not None:
                pool.close(error)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)


def _hides_what_it_shows(host: HostRoot) -> bool:
    return any(is_below(hidden, shown) for hidden in host.hide for shown in host.show)


def _show(path: str) -> Mount | None:
    """A host path at the same place, read-only; one that does not exist shows nothing."""
    try:
        tree = mount.open_tree(path)
    except FileNotFoundError:
        return None
    mount.mount_setattr("", mount.MOUNT_ATTR_RDONLY, dirfd=tree, recursive=True)
    is_file = not stat.S_ISDIR(os.fstat(tree).st_mode)
    return Mount(path, tree, is_file=is_file)


def _become_server_in_child(service: socket.socket, arguments: tuple[str, ...]) -> NoReturn:
    """Between clone and exec: only calls of the kernel, no hook of anybody."""
    try:
        mount.make_private()
        mount.mount("proc", "/proc", "proc", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
        loopback.bring_up()
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(service.fileno(), 3, inheritable=True)
        roots = __file__.rsplit("/sandboxd/", 1)[0]
        command = [sys.executable, "-I", "-S", "-c", _ENTRY, roots, "3", *arguments]
        os.closerange(4, 65536)
        os.execve(sys.executable, command, {"PATH": os.defpath, "LANG": "C.UTF-8"})
    except BaseException as error:
        os.write(2, f"sandboxd: launcher: {error}\n".encode())
    os._exit(125)
