"""Signal names and numbers as Docker's clients write them: KILL, SIGKILL, sigkill, 9, RTMIN+3."""

from __future__ import annotations

import os
import re
import signal

from sandboxd.errors import BadRequest
from sandboxd.linux.syscall_numbers import NUMBERS

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d+))?")
_LAST = 64
_SIGNAL_WAIT = NUMBERS.get(os.uname().machine, {}).get("rt_sigtimedwait")


def signal_number(text: str) -> int:
    """The number behind a signal's name. Raises BadRequest for one that does not exist."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdecimal():
        number = int(name)
    elif match := _REAL_TIME.fullmatch(name):
        base, sign, offset = match.groups()
        number = int(signal.SIGRTMIN if base == "MIN" else signal.SIGRTMAX)
        number += int(offset or 0) * (-1 if sign == "-" else 1)
    else:
        number = getattr(signal, f"SIG{name}", 0) if name.isalnum() else 0
    if not 0 < int(number) <= _LAST:
        raise BadRequest(f"invalid signal: {text}")
    return int(number)


def heeds(pid: int, number: int) -> bool:
    """Whether a signal would do anything to the process that is pid 1 of its namespace.

    The kernel drops every signal to it that it neither catches, nor blocks, nor waits for:
    pid_namespaces(7), `sig_ignored` in kernel/signal.c. True also where that cannot be told.
    """
    bit = 1 << (number - 1)
    try:
        before = _system_call(pid)
        with open(f"/proc/{pid}/status") as status:
            masks = [int(line[8:], 16) for line in status if line.startswith(("SigBlk", "SigCgt"))]
        after = _system_call(pid)
    except (OSError, ValueError):
        return True
    # One that waits in sigwait(3) shows no blocked signals meanwhile.
    settled = before == after != _SIGNAL_WAIT
    return not settled or any(mask & bit for mask in masks)


def _system_call(pid: int) -> int:
    """The call in which a process sleeps, proc_pid_syscall(5). Raises ValueError if it runs."""
    with open(f"/proc/{pid}/syscall") as file:
        return int(file.read().partition(" ")[0])
