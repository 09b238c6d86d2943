"""Pytest's side of the maker: ordering sandboxes, taking them, giving them back, ending them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final

from pytest_sandbox.errors import HostLacks
from pytest_sandbox.hermetic import messages
from pytest_sandbox.hermetic.network import SHARED
from pytest_sandbox.hermetic.plan import Plan
from pytest_sandbox.hermetic.shell import Shell
from sandboxd.linux import namespaces, pidfd

_AHEAD: Final = 2
"""Sandboxes of the plan in use that are ready, or on their way, besides those taken."""
_CODE: Final = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from pytest_sandbox.hermetic import maker; maker.main(int(sys.argv[1]))"
)


class Workshop:
    """The maker's process, and the sandboxes that pytest has of it."""

    def __init__(self) -> None:
        """Start the maker; nothing is waited for."""
        ours, theirs = messages.pair()
        fd = str(theirs.fileno())
        command = [sys.executable, "-I", "-S", "-E", "-c", _CODE, fd, *_roots()]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        self._end = ours
        self.entered = False
        """Whether it is in its user namespace."""
        self._orders: deque[Plan] = deque()
        self._building: dict[str, deque[Shell]] = {}
        self._returned: dict[str, deque[Shell]] = {}
        self._taken: set[Shell] = set()
        self._leaving: set[Shell] = set()
        self._network: Shell | None = None
        self._network_fd = -1

    @property
    def pid(self) -> int:
        """The maker's, whose user namespace the zygote joins."""
        return self._process.pid

    def enter(self, outer: int | None = None) -> None:
        """Have the maker make its user namespace, within that of the descriptor `outer`.

        Raises HostLacks.
        """
        if self.entered:
            return
        messages.send(self._end, ("enter",), [] if outer is None else [outer])
        answer, _ = self._answer()
        if answer[0] == "failed":
            raise HostLacks("enter a user namespace", answer[1], "sandboxctl doctor")
        self.entered = True

    def shared_network(self, plan: Plan) -> Shell:
        """A sandbox that no test runs in: its network is that of all whose plan says SHARED."""
        if self._network is None:
            self._network = self.take(plan, fresh=True)
        return self._network

    def order(self, plan: Plan, ahead: int = _AHEAD) -> None:
        """See to it that so many of the plan's sandboxes are on their way or ready."""
        spec = plan.spec
        building = self._building.setdefault(spec, deque())
        waiting = sum(ordered.spec == spec for ordered in self._orders)
        for _ in range(ahead - len(building) - waiting):
            numbers = list(plan.layout)
            wanted = ("build", plan.operations, numbers, plan.stage, plan.network)
            messages.send(self._end, wanted, self._joined(plan))
            self._orders.append(plan)

    def take(self, plan: Plan, *, fresh: bool) -> Shell:
        """A sandbox of the plan. `fresh`: one that nobody has used; else one that a test has left
        as it was will do. Raises HostLacks."""
        spec = plan.spec
        shell = None if fresh else self._clean(spec)
        if shell is None:
            self.order(plan, 1)
            while not self._building[spec]:
                self._receive_built()
            shell = self._building[spec].popleft()
            self._finish(shell)
            self.order(plan)
        shell.used += 1
        self._taken.add(shell)
        return shell

    def prove(self, plan: Plan) -> None:
        """Have one built, and others on their way. Raises HostLacks."""
        self.order(plan)
        while not self._building[plan.spec]:
            self._receive_built()
        self._finish(self._building[plan.spec][0])

    def expect(self, shell: Shell) -> None:
        """It is given back as soon as its test's process, which has done all, has ended."""
        self._taken.discard(shell)
        self._leaving.add(shell)

    def give_back(self, shell: Shell) -> None:
        """No process of ours is in it any more: ask whether it is clean, and do not wait."""
        self._taken.discard(shell)
        self._leaving.discard(shell)
        try:
            messages.send(shell.control, ("clean",))
        except OSError:
            self.end(shell)
            return
        self._returned.setdefault(shell.spec, deque()).append(shell)

    def left(self, shell: Shell) -> list[str]:
        """`PID: command line` of each process in the sandbox that outlived its test."""
        try:
            messages.send(shell.control, ("left",))
            answer, _ = messages.receive(shell.control)
        except (OSError, EOFError):
            return []
        return list(answer[1])

    def end(self, shell: Shell, *, wait: bool = True) -> None:
        """Kill all that is in the sandbox.

        With `wait` nothing of it is left once this returns. That takes the kernel a while, mostly
        for the mounts: not needed where no process can be in it but its first.
        """
        self._taken.discard(shell)
        self._leaving.discard(shell)
        try:
            pidfd.pidfd_send_signal(shell.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if wait:
            _wait(shell.pidfd)
        shell.control.close()
        os.close(shell.pidfd)
        if shell.uppers >= 0:
            os.close(shell.uppers)

    def release(self, shell: Shell) -> None:
        """Somebody else ends it now."""
        self._taken.discard(shell)

    def hang_up(self) -> None:
        """End every sandbox and the maker, without waiting for the latter."""
        self._end.close()
        for shell in list(self._leaving):
            self.end(shell, wait=False)
        for shell in list(self._taken):
            self.end(shell, wait=shell is not self._network)
        self._end_unused()
        if self._network_fd >= 0:
            os.close(self._network_fd)
            self._network_fd = -1

    def close(self) -> None:
        """The same, and wait for the maker's end."""
        self.hang_up()
        self._process.wait()

    def drop_unused(self) -> None:
        """End the sandboxes that are ready or given back: they were built before something that
        all later ones must show."""
        while self._orders:
            self._receive_built()
        self._end_unused()

    def _end_unused(self) -> None:
        for shells in (*self._building.values(), *self._returned.values()):
            while shells:
                self.end(shells.popleft(), wait=False)

    def _joined(self, plan: Plan) -> list[int]:
        """A descriptor of the network namespace that the plan's sandboxes lie in, if there is one
        already."""
        if plan.network != SHARED or self._network is None:
            return []
        if self._network_fd < 0:
            self._network_fd = namespaces.open_namespace(self._network.pid, "net")
        return [self._network_fd]

    def _clean(self, spec: str) -> Shell | None:
        """A sandbox that was given back and has answered that it is clean. The others go."""
        returned = self._returned.get(spec, deque())
        for _ in range(len(returned)):
            shell = returned.popleft()
            if not _wait(shell.control.fileno(), 0):
                returned.append(shell)
                continue
            clean, left = _verdict(shell)
            if clean:
                return shell
            self.end(shell, wait=left)
        return None

    def _finish(self, shell: Shell) -> None:
        """Wait until it is built."""
        if shell.uppers >= 0:
            return
        try:
            answer, fds = messages.receive(shell.control)
        except EOFError:
            answer, fds = ("failed", "its first process died"), []
        if answer[0] != "ready":
            self.end(shell)
            raise HostLacks("build a sandbox", str(answer[1]), "sandboxctl doctor")
        (shell.uppers,) = fds

    def _receive_built(self) -> None:
        answer, fds = self._answer()
        plan = self._orders.popleft()
        if answer[0] != "built":
            raise HostLacks("build a sandbox", str(answer[1]), "sandboxctl doctor")
        held, control = fds
        shell = Shell(
            pidfd.pid_of(held),
            held,
            -1,
            dict(plan.layout),
            socket.socket(fileno=control),
            plan.spec,
        )
        self._building.setdefault(plan.spec, deque()).append(shell)

    def _answer(self) -> tuple[messages.Message, list[int]]:
        try:
            return messages.receive(self._end)
        except (EOFError, OSError):
            why = f"its process ended with {self._process.wait()}"
            raise HostLacks("make sandboxes", why, "sandboxctl doctor") from None


def _wait(fd: int, milliseconds: int | None = None) -> bool:
    """Whether the descriptor, of any number, is readable by then."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _verdict(shell: Shell) -> tuple[bool, bool]:
    """Whether the sandbox is clean, and whether processes of the test are in it."""
    try:
        answer, _ = messages.receive(shell.control)
    except (EOFError, OSError):
        return False, False
    return bool(answer[1]), bool(answer[2])


def _roots() -> Sequence[str]:
    """Where the maker finds the two packages that it is made of."""
    roots: Mapping[str, None] = dict.fromkeys(
        os.path.dirname(place)
        for name in ("pytest_sandbox", "sandboxd")
        if (spec := find_spec(name)) is not None
        for place in spec.submodule_search_locations or ()
    )
    return list(roots)
