"""The maker: a lean process that builds sandboxes ahead of the tests. Run by path, never imported
by pytest: `python -I -S -E -c … FD`, with the standard library and `sandboxd.linux` alone.

It enters a user namespace of its own, in which the zygote joins it, and forks each sandbox from
there. A sandbox lives as long as somebody holds its control socket; the maker as long as pytest
holds the maker's.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from pytest_sandbox.hermetic import assembly, messages, reuse
from pytest_sandbox.hermetic.network import OWN, SHARED
from sandboxd.linux import idmap, mount, namespaces, process
from sandboxd.linux.loopback import bring_up

_SHELL: Final = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)
HOST_NAME: Final = "localhost"
"""Of every sandbox: it resolves wherever /etc/hosts is sane."""


def main(fd: int) -> NoReturn:
    """Serve the socket `fd` until its other end is closed."""
    process.set_parent_death_signal(signal.SIGKILL)
    os.setsid()
    process.set_name("hermetic-maker")
    end = socket.socket(fileno=fd)
    _leave_streams(fd)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    maps = ("", "")
    while True:
        try:
            message, fds = messages.receive(end)
        except (EOFError, ConnectionError):
            os._exit(0)  # at once: somebody waits for it
        answer: messages.Message
        made: tuple[int, ...] = ()
        try:
            if message[0] == "enter":
                maps = _enter(fds)
                gc.freeze()
                answer = ("entered",)
            elif fds:
                made = _build_in_network(message[1:], maps, fds[0])
                answer = ("built",)
            else:
                made = _build(message[1:], maps)
                answer = ("built",)
        except Exception as error:
            answer = ("failed", str(error) if isinstance(error, OSError) else repr(error))
        messages.send(end, answer, made)
        for received in (*fds, *made):
            os.close(received)


def _leave_streams(kept: int) -> None:
    """Nobody who reads pytest's output to its end has to wait for us."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    _close_all_but(kept)


def _close_all_but(kept: int) -> None:
    if kept > 3:
        process.close_from(3, kept - 1)
    process.close_from(kept + 1)


def _enter(fds: Sequence[int]) -> tuple[str, str]:
    """Into the maker's user namespace, within the one that was sent, if one was.

    Returns the uid_map and gid_map of the sandboxes.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if fds:
        namespaces.setns(fds[0], namespaces.CLONE_NEWUSER)
    maps = idmap.enter_as_oneself(nested=bool(fds))
    mount.make_private()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return maps


def _build(arguments: Sequence[Any], maps: tuple[str, str]) -> tuple[int, int]:
    """Fork a sandbox; its pidfd and our end of its control socket, for pytest."""
    operations, numbers, stage, network = arguments
    flags = _SHELL | (namespaces.CLONE_NEWNET if network == OWN else 0)
    ours, theirs = messages.pair()
    mapped, tell = os.pipe()
    pid, pidfd = namespaces.fork_into(flags)
    if pid == 0:
        ours.close()
        os.close(tell)
        _become_in_child(theirs, mapped, operations, numbers, stage, network)
    theirs.close()
    os.close(mapped)
    try:
        for name, text in zip(("uid_map", "gid_map"), maps, strict=True):
            _write(f"/proc/{pid}/{name}", text)
        os.write(tell, b"m")
    finally:
        os.close(tell)
    return pidfd, ours.detach()


def _build_in_network(
    arguments: Sequence[Any], maps: tuple[str, str], network: int
) -> tuple[int, ...]:
    """The same, in a network namespace that there is. Whoever enters it cannot come back, so that
    a process in between does, and leaves the sandbox to us."""
    ours, theirs = messages.pair()
    between = os.fork()
    if between == 0:
        try:
            namespaces.setns(network, namespaces.CLONE_NEWNET)
            messages.send(theirs, ("built", ""), _build(arguments, maps))
        except OSError as error:
            messages.send(theirs, ("failed", str(error)))
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        (_, why), made = messages.receive(ours)
    if why:
        raise OSError(why)
    return tuple(made)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _become_in_child(
    control: socket.socket,
    mapped: int,
    operations: Sequence[Any],
    numbers: Sequence[str],
    stage: str,
    network: str,
) -> NoReturn:
    """Build the root, say that it is ready, and answer until the other end is closed."""
    try:
        os.read(mapped, 1)
        _close_all_but(control.fileno())
        process.set_name("hermetic")
        process.sethostname(HOST_NAME)
        if network != SHARED:  # whose parent ends at once
            process.set_parent_death_signal(signal.SIGKILL)
        if network == OWN:
            bring_up()
        uppers, last_pid = assembly.assemble_in_child(operations, stage)
        handles = reuse.open_handles(uppers, last_pid, numbers, network=network == OWN)
        at_first = reuse.state(handles)
        messages.send(control, ("ready",), [uppers])
        _serve_in_child(control, handles, at_first)
    except EOFError:
        os._exit(0)
    except BaseException as error:
        try:
            messages.send(control, ("failed", str(error) or repr(error)))
        finally:
            os._exit(1)
    os._exit(0)


def _serve_in_child(
    control: socket.socket, handles: reuse.Handles, at_first: tuple[object, ...]
) -> None:
    """`("left",)`: which processes outlived the test; `("clean",)`: also whether all is as it was,
    in which case pids begin again."""
    while True:
        (question,), _ = messages.receive(control)
        left = reuse.children(handles)
        if question == "left":
            messages.send(control, ("left", reuse.describe(left)))
            continue
        clean = not left and reuse.state(handles) == at_first
        if clean:
            reuse.begin_again(handles)
        messages.send(control, ("clean", clean, bool(left)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
