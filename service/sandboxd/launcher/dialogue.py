"""What the service says to a slot or joiner, each on a socket of its own, and what it hears."""

from __future__ import annotations

import asyncio
import os

from sandboxd.errors import StartFailed
from sandboxd.launcher import wire
from sandboxd.launcher.running import Running
from sandboxd.launcher.spec import Process


def tell(child: Running, message: wire.Message, fds: tuple[int, ...]) -> None:
    """Send it; the descriptors are duplicated."""
    try:
        wire.send(child.control, message, fds)
    except OSError:
        # The child ended before it was told anything; its reason, if any, waits in the socket.
        pass


async def answer(child: Running) -> tuple[wire.Message, list[int]] | None:
    """The next message of a child; None once it has closed its end."""
    await readable(child.control.fileno())
    try:
        return wire.receive(child.control)
    except (EOFError, ConnectionResetError):
        return None


def take(child: Running, answer: tuple[wire.Message, list[int]], process: Process) -> None:
    """Keep the terminal that a child made. Raises StartFailed for the error that it met."""
    message, fds = answer
    if message[0] != "pty":
        raise _start_failure(process, *message[1:])
    child.pty = fds[0]


def kill(child: Running) -> None:
    try:
        child.kill(9)
    except ProcessLookupError:
        pass


def abandon(child: Running) -> None:
    """Kill it and give back all descriptors."""
    if child.pty is not None:
        os.close(child.pty)
        child.pty = None
    kill(child)
    child.close()


def move_to_cgroups(child: Running, directories: tuple[str, ...]) -> None:
    for directory in directories:
        with open(f"{directory}/cgroup.procs", "w") as file:
            file.write(str(child.pid))


async def readable(descriptor: int) -> None:
    """Wait until it can be read from."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _start_failure(process: Process, exit_code: int, text: str) -> StartFailed:
    what = "failed to create task for container"
    mend = ""
    if exit_code == 127 and process.args:
        mend = f"install {process.args[0]} in the image, or name another command"
    return StartFailed(what, text, mend, exit_code=exit_code)
