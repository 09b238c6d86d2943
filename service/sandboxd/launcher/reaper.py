"""`--init`: a pid 1 that forwards signals and reaps, with the command as its child: init(1).

This is the one case in which a Python process stays behind; Docker runs tini for it.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

from sandboxd.launcher import profile
from sandboxd.linux import capabilities
from sandboxd.linux import process as own_process

_CAPABILITIES: Final = ("KILL",)

_KEPT: Final = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}
)


def fork_in_child(control: socket.socket) -> None:
    """Return in a new child that goes on to exec; the caller stays behind as its reaper."""
    everything = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
        os.setpgid(0, 0)
        _take_foreground()
        return
    control.close()
    own_process.set_name("sandbox-init")
    own_process.close_from(3)
    _keep_only_what_a_reaper_needs()
    _reap_until_gone(child)


def _keep_only_what_a_reaper_needs() -> None:
    """Signals to a child that may have another user, and the container's own filter."""
    capabilities.drop_bounding(_CAPABILITIES)
    capabilities.set_exactly(_CAPABILITIES)
    own_process.set_no_new_privs()
    profile.prepared_filter(frozenset(_CAPABILITIES)).install()


def _take_foreground() -> None:
    """On a terminal the command, not the reaper, is the foreground process group: tcsetpgrp(3)."""
    if not os.isatty(0):
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _reap_until_gone(child: int) -> None:
    waited = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    while True:
        received = signal.sigwait(waited)
        if received not in _KEPT:
            _forward(child, received)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == child:
                os._exit(_exit_code(status))


def _forward(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
