"""The tests' processes, as pytest holds them. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pytest_sandbox.hermetic import stream
from pytest_sandbox.hermetic.crash import how_it_ended
from pytest_sandbox.hermetic.shell import Shell
from pytest_sandbox.hermetic.watchdog import Limit
from pytest_sandbox.hermetic.zygote import Zygote


class TestProcess:
    """One process, in its sandbox if it has one."""

    __test__ = False

    def __init__(self, number: int, shell: Shell | None, end: socket.socket) -> None:
        self.number = number
        self.shell = shell
        self.failed = False
        """Whether one of its tests has."""
        self.over = ""
        """How it has ended, in words; empty while it has not."""
        self.nodeid = ""
        """Of the test that it has begun last."""
        self.limit: Limit | None = None
        """pytest-timeout's for the test that it runs."""
        self.has_left_some = False
        """Whether processes outlived its tests, or it did not end by itself."""
        self.is_left = False
        """Whether nobody waits for its messages any more."""
        self.dismissed: Callable[[], None] | None = None
        """What to do when it has ended, once pytest has no more to do with it."""
        self._end = end
        self._incoming = stream.Incoming(end)

    def tell(self, *message: Any) -> None:
        """Send a message; a process that is gone says so by its end."""
        try:
            stream.send(self._end, message)
        except OSError:
            pass

    def next_message(self, processes: Processes) -> tuple[Any, ...] | None:
        """Wait for its next message; None when it has ended and all were received."""
        if self.over:
            return self._incoming.receive()
        return self._incoming.next_or(processes.fileno(), lambda: self._hear(processes))

    def _hear(self, processes: Processes) -> bool:
        processes.hear()
        return bool(self.over)

    def close(self) -> None:
        self._end.close()


class Processes:
    """A zygote and the processes that it has forked."""

    def __init__(self, session: pytest.Session, joined: int | None, kept: frozenset[int]) -> None:
        """As for Zygote."""
        self._zygote = Zygote(session, joined, kept)
        self._running: dict[int, TestProcess] = {}
        self._count = 0

    def fileno(self) -> int:
        return self._zygote.fileno()

    def fork(self, shell: Shell | None, network: str) -> TestProcess:
        """A process in the sandbox, which waits for what to run. `network`: see Zygote.fork."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._count += 1
        with theirs:
            self._zygote.fork(self._count, shell, network, theirs)
        process = self._running[self._count] = TestProcess(self._count, shell, ours)
        return process

    def hear(self) -> None:
        """Wait until one has ended, and note it down."""
        number, status, why = self._zygote.ended()
        if number < 0:
            for process in list(self._running.values()):
                self._note(process, f"died, because the zygote {how_it_ended(status)}")
            return
        self._note(self._running[number], why or how_it_ended(status))

    def wait_for(self, process: TestProcess) -> None:
        """Until it has ended."""
        while not process.over:
            self.hear()

    def hang_up(self) -> None:
        """Have the zygote end, and with it all its processes, without waiting for it."""
        for process in self._running.values():
            process.dismissed = None
        self._zygote.hang_up()

    def close(self) -> None:
        """End the zygote, and with it all its processes."""
        self._zygote.close()
        for process in list(self._running.values()):
            self._note(process, "was not needed any more")

    def _note(self, process: TestProcess, over: str) -> None:
        process.over = over
        del self._running[process.number]
        if process.dismissed is not None:
            process.dismissed()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
