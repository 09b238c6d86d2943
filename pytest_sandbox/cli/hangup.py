"""The end of a command whose reader has hung up, as in `sandboxctl ps | head -1`."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class HungUp(Exception):
    """Nobody reads any more what the command prints."""


@contextmanager
def noticed() -> Iterator[None]:
    """Raise HungUp where a write to standard output or error has failed for that reason."""
    try:
        yield
    except BrokenPipeError as error:
        if not _readers_gone():
            raise  # some other pipe, or a socket
        raise HungUp from error


def end() -> NoReturn:
    """End as a program does that knows nothing of it: by SIGPIPE, a status of 141 in the shell."""
    heed_signal()
    os.kill(os.getpid(), signal.SIGPIPE)
    raise AssertionError("SIGPIPE is blocked")


def heed_signal() -> None:
    """Python ignores SIGPIPE, and so would the programs that replace it: signal(7), execve(2)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _readers_gone() -> bool:
    """poll(2): POLLERR is set for the writing end of a pipe when the reading end was closed."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))
