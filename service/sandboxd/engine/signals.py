"""Signal names and numbers as Docker's clients write them: KILL, SIGKILL, sigkill, 9, RTMIN+3."""

from __future__ import annotations

import re
import signal

from sandboxd.errors import BadRequest

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d+))?")
_LAST = 64


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
