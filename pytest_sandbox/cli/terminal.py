"""A program's streams on this process's own: output, input, terminal mode, size and signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox.client.streams import Attachment

_FORWARDED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)


def require_terminal() -> None:
    """Refuse what needs a terminal as standard input when there is none."""
    if not sys.stdin.isatty():
        from pytest_sandbox.errors import BadRequest

        raise BadRequest("-t with -i", "standard input is not a terminal", "leave out -t")


def size() -> tuple[int, int] | None:
    """(rows, columns) of the terminal; None when there is none."""
    for stream in (sys.stdout, sys.stdin):
        try:
            columns, rows = os.get_terminal_size(stream.fileno())
        except OSError:
            continue
        return rows, columns
    return None


def pump(attachment: Attachment, interactive: bool) -> None:
    """Copy the program's output here, and our input there when `interactive`, until it ends."""
    source = sys.stdin.fileno() if interactive else None
    for stream, data in attachment.exchange(source=source):
        write(stream, data)


def write(stream: int, data: bytes) -> None:
    """Write bytes to standard output (1) or standard error (2), at once."""
    out = sys.stdout.buffer if stream == 1 else sys.stderr.buffer
    out.write(data)
    out.flush()


@contextmanager
def session(
    interactive: bool,
    tty: bool,
    resize: Callable[[int, int], None],
    kill: Callable[[int], None] | None = None,
) -> Iterator[None]:
    """What this process's terminal and signals do while a program runs; entered before its start.

    With a terminal of its own the program learns of every new size of ours; when it reads from
    ours, every key goes to it. Otherwise the signals that we get are given to `kill`.
    """
    with ExitStack() as stack:
        if tty:
            stack.enter_context(_resized(resize))
        if tty and interactive:
            stack.enter_context(_raw_mode())
        elif kill is not None:
            stack.enter_context(_forwarded_signals(kill))
        yield


@contextmanager
def _raw_mode() -> Iterator[None]:
    """Let every key go to the program: termios(3), raw mode."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _resized(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tell the program the terminal's size whenever it changes."""

    def apply(_number: int) -> None:
        from pytest_sandbox.errors import SandboxError

        if now := size():
            try:
                resize(*now)
            except SandboxError:
                pass  # it has not started yet, or has ended

    with _handling([signal.SIGWINCH], apply):
        yield


@contextmanager
def _forwarded_signals(kill: Callable[[int], None]) -> Iterator[None]:
    """Send the signals that we get to the program; the second interrupt kills it.

    The program is process 1 of its namespace: signals that it does not handle do nothing to it
    (pid_namespaces(7)), and Ctrl-C would seem dead.
    """
    interrupts = 0

    def forward(number: int) -> None:
        nonlocal interrupts
        from pytest_sandbox.errors import SandboxError

        interrupts += number == signal.SIGINT
        try:
            kill(signal.SIGKILL if interrupts > 1 else number)
        except SandboxError:
            pass  # it has ended at this moment

    with _handling(_FORWARDED, forward):
        yield


@contextmanager
def _handling(numbers: Iterable[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
