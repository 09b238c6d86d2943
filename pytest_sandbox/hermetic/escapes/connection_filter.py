"""The system call filter that shows connections to the watcher: connect(2), and sendto(2) with an
address. PYTEST_DONT_REWRITE

sendmsg(2) hides its address in memory that a filter cannot read, and is on the hot path of servers:
it is left out, as is io_uring.
"""

from __future__ import annotations

import os
from typing import Final

from sandboxd.linux import seccomp
from sandboxd.linux.syscall_numbers import NUMBERS

_ADDRESS_OF_SENDTO: Final = 4
_MACHINE: Final = os.uname().machine
CONNECT: Final = NUMBERS.get(_MACHINE, {}).get("connect", -1)


def install() -> int:
    """Put this thread and all its children under the filter; the listener's descriptor.

    Needs CAP_SYS_ADMIN in the own user namespace: with PR_SET_NO_NEW_PRIVS instead, tests would see
    set-user-ID programs fail. Raises OSError.
    """
    return seccomp.PreparedFilter(program()).install_listened()


def program() -> bytes:
    """Raises KeyError on an architecture that is neither x86_64 nor aarch64."""
    numbers = NUMBERS[_MACHINE]
    filter_ = seccomp.Program()
    filter_.load(seccomp.ARCH_OFFSET)
    filter_.branch(seccomp.EQUAL, seccomp.AUDIT_ARCH[_MACHINE], seccomp.NEXT, "allow")
    filter_.load(seccomp.NUMBER_OFFSET)
    filter_.branch(seccomp.EQUAL, numbers["connect"], "show")
    filter_.branch(seccomp.EQUAL, numbers["sendto"], seccomp.NEXT, "allow")
    for half in (0, 4):
        filter_.load(seccomp.low_word(_ADDRESS_OF_SENDTO) + half)
        filter_.branch(seccomp.EQUAL, 0, seccomp.NEXT, "show")
    filter_.mark("allow")
    filter_.ret(seccomp.RET_ALLOW)
    filter_.mark("show")
    filter_.ret(seccomp.RET_USER_NOTIF)
    return filter_.assemble()
