"""A warm process that joins a running container, spawns one command there, and is gone.

setns(2) puts only children into another pid namespace, so an exec needs a second process. A fork
would touch every page that Python writes once more, after the request has come; posix_spawn(3)
lends the joiner's memory to the child until it executes (CLONE_VM, CLONE_VFORK), and the joiner has
rehearsed all before. It is never visible inside the container: its own pid namespace is outside.

Everything here runs in the child of the fork server. Its answer is `("started",)` with the pidfd of
the command, or `("error", exit code, text)`. The end of a quick command it reports itself, as
`("ended", exit code or minus a signal)`. A command that outlives it is the fork server's child: the
joiner's pid namespace decides who inherits it (pid_namespaces(7)).
"""

from __future__ import annotations

import gc
import os
import select
import socket
from typing import Final, NoReturn

from sandboxd.launcher import entry, slot, wire
from sandboxd.launcher.spec import Process
from sandboxd.linux import capabilities, namespaces, pidfd

LEFT: Final = 0
"""Its exit code when it leaves a running command to the fork server."""
DONE: Final = 3
"""Its exit code when the command has ended, and the service knows."""
_UNUSED: Final = 1
_STAY: Final = 0.03
"""Seconds for which it waits for the command's end: no Python stays beside a longer one."""
_NO_COMMAND: Final = "/"
"""Exists and cannot be executed: to rehearse a spawn up to its failure."""


def run_in_child(control: socket.socket, flags: int, *, single_id: bool) -> NoReturn:
    """The whole life of a joiner; `flags` are the namespaces that it enters."""
    try:
        own = _prepare_in_child(control, flags, single_id=single_id)
        message, fds = wire.receive(control)
        process = Process(*message[1])
        namespaces.setns(fds[0], flags)
        _join_in_child(control, process, fds[1:], own, single_id=single_id)
    except EOFError:
        os._exit(_UNUSED)
    except BaseException as error:
        slot.report_in_child(control, error)
    os._exit(LEFT)


def _prepare_in_child(control: socket.socket, flags: int, *, single_id: bool) -> int:
    """Rehearse; a descriptor of this process's own /proc directory, which the container's hides."""
    slot.quiet_in_child("sandbox-join", control.fileno())
    own = os.open("/proc/self/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    process = Process((_NO_COMMAND,), ("PATH=/",), capabilities=capabilities.NAMES)
    _, fds = wire.through_a_socket(("exec", tuple(process)), (0, 1, 2))
    entry.rehearse_in_child(process, root, single_id=single_id)
    try:
        entry.spawn(process.args, {}, entry.piped(*fds))
    except entry.Refusal:
        pass
    try:
        namespaces.setns(root, flags)
    except OSError:
        pass
    for fd in (root, *fds):
        os.close(fd)
    gc.freeze()
    return own


def _join_in_child(
    control: socket.socket, process: Process, streams: list[int], own: int, *, single_id: bool
) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    actions = _streams(control, process, streams)
    os.umask(0o022)
    environment = entry.take_on_in_child(process, root, own=own, single_id=single_id)
    command = pidfd.pidfd_open(entry.spawn(process.args, environment, actions))
    wire.send(control, ("started",), [command])
    if select.select([command], [], [], _STAY)[0]:
        wire.send(control, ("ended", pidfd.reap(command)))
        os._exit(DONE)


def _streams(
    control: socket.socket, process: Process, streams: list[int]
) -> list[entry.FileAction]:
    if not process.tty:
        return entry.piped(*streams)
    master, slave = entry.open_terminal_in_child(process)
    wire.send(control, ("pty",), [master])
    return entry.on_terminal(os.ttyname(slave))
