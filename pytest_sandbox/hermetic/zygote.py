"""The zygote: pytest's process, forked once, which forks each test's process into its sandbox.

Only a process in the user namespace that owns the sandboxes may have its children born in one, and
pytest itself stays outside. Everything here but `Zygote` runs in that fork. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import warnings
from typing import Final, NoReturn

import pytest

from pytest_sandbox.hermetic import child, descriptors, memory, messages
from pytest_sandbox.hermetic.network import HOST, be_in_network_of
from pytest_sandbox.hermetic.shell import Shell
from pytest_sandbox.hermetic.witness import zygote_preparations
from sandboxd.linux import capabilities, keyring, namespaces, process

ROOTS: Final = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
)
"""What root's tests hold in their sandbox: owners and modes, as their files have them; nothing that
could take a mount or the network apart. Another user's hold nothing."""


class Zygote:
    """Pytest's hold on it: asks for forks, hears of ends."""

    def __init__(self, session: pytest.Session, joined: int | None, kept: frozenset[int]) -> None:
        """Fork it. `joined`: the pidfd of the maker, whose user namespace it enters; None: none,
        and its children are plain forks. `kept`: descriptors that fixtures hold."""
        ours, theirs = messages.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        # The threads that are there are told by pytest_sandbox.hermetic.threads, by name.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _become_in_child(session, theirs, joined, kept)
        theirs.close()
        self._end = ours

    def fileno(self) -> int:
        """Readable when a process has ended."""
        return self._end.fileno()

    def fork(self, number: int, shell: Shell | None, network: str, end: socket.socket) -> None:
        """Ask for a process in the sandbox, with `end` to talk to us.

        `number` names it in what `ended` returns. `network`: whose the sandbox is in.
        """
        fds = [end.fileno()] if shell is None else [end.fileno(), shell.pidfd]
        pid = 0 if shell is None else shell.pid
        messages.send(self._end, ("fork", number, pid, network), fds)

    def ended(self) -> tuple[int, int, str]:
        """(number, wait status, why it never began) of the next process that has ended; waits.

        When the zygote itself has died: (-1, its wait status, …).
        """
        try:
            (_, number, status, why), _ = messages.receive(self._end)
        except (EOFError, OSError):
            return -1, self._wait(), "the zygote died"
        return number, status, why

    def hang_up(self) -> None:
        """Have it end; if it has children, they die with it."""
        self._end.close()

    def close(self) -> None:
        """Hang up, and wait for its end."""
        self.hang_up()
        self._wait()

    def _wait(self) -> int:
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 0


def _become_in_child(
    session: pytest.Session, control: socket.socket, joined: int | None, kept: frozenset[int]
) -> NoReturn:
    """Never returns, whatever happens: the caller's stack is pytest's."""
    running: dict[int, tuple[int, int]] = {}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if joined is not None:
            namespaces.setns(joined, namespaces.CLONE_NEWUSER)
            for prepare in zygote_preparations(session.config):
                prepare()
        process.set_parent_death_signal(signal.SIGKILL)
        descriptors.clean_in_child(session.config, kept | {control.fileno()})
        child.prepare_in_zygote(session)
        memory.settle(len(session.items))
        gc.freeze()
        _serve_in_child(session, control, running)
    except (EOFError, ConnectionError):
        _end_in_child(running)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"hermetic: the zygote failed: {error!r}\n".encode())
        os._exit(1)


def _end_in_child(running: dict[int, tuple[int, int]]) -> None:
    """A sandbox ends when all its processes have been waited for, and where a container's first
    process adopts ours, as CI machines have it, it may never do so."""
    for held, (_, pid) in running.items():
        signal.pidfd_send_signal(held, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve_in_child(
    session: pytest.Session, control: socket.socket, running: dict[int, tuple[int, int]]
) -> NoReturn:
    """Fork and reap until pytest is gone. `running`: by pidfd, the number and the pid."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != control.fileno():
                number, pid = running.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _, status = os.waitpid(pid, 0)
                messages.send(control, ("ended", number, status, ""))
                continue
            (_, number, inside, network), fds = messages.receive(control)
            try:
                if len(fds) > 1:
                    # Repeatable, unlike unshare(2): the next child is born there, we stay.
                    namespaces.setns(fds[1], namespaces.CLONE_NEWPID)
                pid = os.fork()
                if pid == 0:
                    _run_in_child(session, fds, inside, network, [control.detach(), *running])
            except OSError as error:
                messages.send(control, ("ended", number, 0, str(error)))
            else:
                held = os.pidfd_open(pid)
                running[held] = number, pid
                poll.register(held, select.POLLIN)
            finally:
                for received in fds:
                    os.close(received)


def _run_in_child(
    session: pytest.Session, fds: list[int], inside: int, network: str, inherited: list[int]
) -> NoReturn:
    """Enter the sandbox, if there is one, and be a test's process. `inside`: the sandbox's pid 1,
    as pytest sees it; `inherited`: descriptors of the zygote's."""
    try:
        end, *shell = fds
        if shell:
            shared = namespaces.CLONE_NEWNET if network == HOST else 0
            flags = namespaces.CONTAINER & ~namespaces.CLONE_NEWPID & ~shared
            namespaces.setns(shell[0], flags)
            _give_up_in_child()
            if network != HOST:
                be_in_network_of(inside)
        for fd in (*inherited, *shell):
            os.close(fd)
        process.set_parent_death_signal(signal.SIGKILL)
        keyring.join_new_session()
    except BaseException as error:
        os.write(2, f"hermetic: entering a sandbox: {error}\n".encode())
        os._exit(1)
    child.run_in_child(session, socket.socket(fileno=end), alone=bool(shell))


def _give_up_in_child() -> None:
    """Keep what a test may have of the capabilities over its own sandbox.

    Entering a user namespace fills the bounding set again. An ordinary user's programs gain nothing
    from it, because the id 0, which set-user-ID and file capabilities are about, is not mapped.
    """
    if os.geteuid() == 0:
        capabilities.drop_bounding(ROOTS)
        capabilities.set_exactly(ROOTS)
    else:
        capabilities.set_exactly(())
