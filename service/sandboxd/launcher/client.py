"""The service's end of the fork server: warm slots on hand, starts, execs, ends.

A slot's own socket and pidfd are handed to the service when the slot is made, so that a start is
one message from the service straight to the slot; the fork server learns of it only by the exit.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from typing import Final, NoReturn, Self

from sandboxd.errors import HostLacks, SandboxError, StartFailed, Unavailable
from sandboxd.launcher import wire
from sandboxd.launcher.spec import ContainerSpec, Process
from sandboxd.linux import loopback, mount, namespaces, pidfd
from sandboxd.linux.idmap import IdMap
from sandboxd.linux.pidfd import reap

_REFILL_DELAY: Final = 0.002
"""Seconds from a start to the order for its replacement: the request at hand comes first."""
_OUTER: Final = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS
_ENTRY: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from sandboxd.launcher.server import main; main(int(sys.argv[2]), *sys.argv[3:])"
)

Stdio = tuple[int, int, int]


class Running:
    """A process of a container: its first one or an exec."""

    def __init__(self, token: int, descriptor: int, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.pidfd = descriptor
        self.pid = pidfd.pid_of(descriptor)
        self.pty: int | None = None
        self.exited: asyncio.Future[int] = loop.create_future()
        self.exit_signal = 0
        self.token = token
        self.control = control

    def kill(self, signal: int) -> None:
        """pidfd_send_signal(2). Raises ProcessLookupError when the process is gone."""
        pidfd.pidfd_send_signal(self.pidfd, signal)

    def close(self) -> None:
        """Give back the descriptors; the process itself is not touched."""
        self.control.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def finish(self, status: int) -> None:
        """Record the wait status that the fork server reported."""
        code = os.waitstatus_to_exitcode(status)
        self.exit_signal = -code if code < 0 else 0
        if not self.exited.done():
            self.exited.set_result(code if code >= 0 else 128 - code)


class Launcher:
    """The only holder of the fork server's socket; use from one event loop."""

    def __init__(self, server: socket.socket, descriptor: int, warm: int) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._server = server
        self._pidfd = descriptor
        self._warm_target = warm
        self._warm: deque[Running] = deque()
        self._ordered = 0
        self._next_token = 0
        self._slot_waiters: deque[asyncio.Future[Running]] = deque()
        self._answers: dict[int, asyncio.Future[Running | int]] = {}
        self._running: dict[int, Running] = {}
        self._outbox: deque[tuple[wire.Message, tuple[int, ...]]] = deque()
        self._refill_timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[str] = loop.create_future()

    @classmethod
    async def spawn(cls, idmap: IdMap, *, stage: str, warm: int = 4) -> Self:
        """Start the fork server in namespaces of its own and order the first warm slots.

        The calling process must be in the outer user namespace. `stage` is an existing empty
        directory. Raises HostLacks when the first slot cannot be made.
        """
        ours, theirs = wire.pair()
        arguments = (stage, *idmap.nested())
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
        launcher._loop.add_reader(ours, launcher._on_readable)
        launcher._refill()
        first = await launcher._take_slot()
        launcher._warm.appendleft(first)
        return launcher

    @property
    def warm_slots(self) -> int:
        return len(self._warm)

    @property
    def pid(self) -> int:
        """The fork server's pid, as the service sees it."""
        return pidfd.pid_of(self._pidfd)

    async def start(self, spec: ContainerSpec, stdio: Stdio) -> Running:
        """Run the first process of a container; returns once execve(2) has succeeded.

        The descriptors are duplicated. Raises StartFailed with exit_code 127, 126 or 125.
        """
        slot = await self._take_slot()
        self._plan_refill()
        plain, fds = spec.to_wire()
        for directory in spec.cgroups:
            _move_to_cgroup(directory, slot.pid)
        return await self._deliver(slot, ("start", plain), (*stdio, *fds), spec.process)

    async def exec(
        self, target: Running, process: Process, stdio: Stdio, cgroups: tuple[str, ...] = ()
    ) -> Running:
        """Run another process inside a running container. Raises StartFailed like `start`."""
        entered = await self._ask(("enter",), (target.pidfd,))
        assert isinstance(entered, Running)
        for directory in cgroups:
            _move_to_cgroup(directory, entered.pid)
        return await self._deliver(entered, ("exec", process.to_wire()), stdio, process)

    async def net_socket(self, target: Running, family: int, kind: int) -> socket.socket:
        """A fresh socket inside the network namespace of a running container."""
        fd = await self._ask(("socket", int(family), int(kind)), (target.pidfd,))
        assert isinstance(fd, int)
        return socket.socket(fileno=fd)

    async def close(self) -> None:
        """End the fork server, and with it every process that it started."""
        if self._refill_timer is not None:
            self._refill_timer.cancel()
        self._loop.remove_reader(self._server)
        self._loop.remove_writer(self._server)
        self._server.close()
        await self._gone()
        for slot in self._warm:
            slot.close()
        self._warm.clear()

    async def _gone(self) -> None:
        await self._readable(self._pidfd)
        reap(self._pidfd)
        os.close(self._pidfd)

    async def _deliver(
        self, child: Running, message: wire.Message, fds: tuple[int, ...], process: Process
    ) -> Running:
        try:
            wire.send(child.control, message, fds)
        except OSError:
            # The child ended before it was told anything; its reason, if any, waits in the socket.
            pass
        try:
            while True:
                await self._readable(child.control.fileno())
                try:
                    answer, arrived = wire.receive(child.control)
                except (EOFError, ConnectionResetError):
                    break
                if answer[0] == "pty":
                    child.pty = arrived[0]
                    continue
                raise _start_failure(process, *answer[1:])
        except BaseException:
            if child.pty is not None:
                os.close(child.pty)
                child.pty = None
            self._abandon(child)
            raise
        return child

    def _abandon(self, child: Running) -> None:
        try:
            child.kill(9)
        except ProcessLookupError:
            pass
        self._running.pop(child.token, None)
        child.close()

    async def _readable(self, descriptor: int) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(descriptor)

    async def _take_slot(self) -> Running:
        if self._warm:
            return self._warm.popleft()
        waiter: asyncio.Future[Running] = self._loop.create_future()
        self._slot_waiters.append(waiter)
        self._order_slots(len(self._slot_waiters))
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._warm.append(waiter.result())
            raise

    def _plan_refill(self) -> None:
        if self._refill_timer is None:
            self._refill_timer = self._loop.call_later(_REFILL_DELAY, self._refill)

    def _refill(self) -> None:
        self._refill_timer = None
        self._order_slots(self._warm_target - len(self._warm) + len(self._slot_waiters))

    def _order_slots(self, wanted: int) -> None:
        while self._ordered < wanted:
            self._ordered += 1
            self._post(("slot", self._token()))

    def _token(self) -> int:
        self._next_token += 1
        return self._next_token

    async def _ask(self, message: wire.Message, fds: tuple[int, ...]) -> Running | int:
        token = self._token()
        answer: asyncio.Future[Running | int] = self._loop.create_future()
        self._answers[token] = answer
        self._post((message[0], token, *message[1:]), fds)
        return await answer

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
            self._settle(token, fds[0])
        elif kind == "failed":
            self._on_failure(token, *rest)

    def _on_child(self, token: int, descriptor: int, control_fd: int) -> None:
        control = socket.socket(fileno=control_fd)
        child = Running(token, descriptor, control)
        self._running[token] = child
        if token in self._answers:
            self._settle(token, child)
            return
        self._ordered -= 1
        while self._slot_waiters:
            waiter = self._slot_waiters.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._warm.append(child)

    def _settle(self, token: int, value: Running | int) -> None:
        answer = self._answers.pop(token)
        if not answer.done():
            answer.set_result(value)
        elif isinstance(value, Running):
            self._abandon(value)
        else:
            os.close(value)

    def _on_exit(self, token: int, status: int) -> None:
        child = self._running.pop(token, None)
        if child is None:
            return
        if child in self._warm:
            self._warm.remove(child)
            child.close()
        child.finish(status)

    def _on_failure(self, token: int, number: int, text: str) -> None:
        error: SandboxError
        if token in self._answers:
            answer = self._answers.pop(token)
            error = StartFailed("enter the container", text)
            if not answer.done():
                answer.set_exception(error)
            return
        self._ordered -= 1
        error = HostLacks("make namespaces for a container", text, "sandboxctl doctor")
        while self._slot_waiters:
            waiter = self._slot_waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    def _lose(self, why: str) -> None:
        if self.lost.done():
            return
        self._loop.remove_reader(self._server)
        self._loop.remove_writer(self._server)
        reason = f"the fork server ended ({why or 'no reason given'})"
        self.lost.set_result(reason)
        error = Unavailable("launcher", reason, "sandboxctl service start")
        for waiter in self._slot_waiters:
            if not waiter.done():
                waiter.set_exception(error)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        for child in list(self._running.values()):
            child.finish(9)
        self._running.clear()


def _start_failure(process: Process, exit_code: int, text: str) -> SandboxError:
    what = "failed to create task for container"
    mend = ""
    if exit_code == 127 and process.args:
        mend = f"install {process.args[0]} in the image, or name another command"
    return StartFailed(what, text, mend, exit_code=exit_code)


def _move_to_cgroup(directory: str, pid: int) -> None:
    with open(f"{directory}/cgroup.procs", "w") as file:
        file.write(str(pid))


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
