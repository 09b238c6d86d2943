"""The kernel's keyrings, as far as they outlive a process: keyctl(2), keyrings(7).

A session keyring is inherited by fork, the user keyring belongs to a user namespace and a user.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from sandboxd.linux.syscall_numbers import NUMBERS
from sandboxd.linux.syscalls import syscall

_JOIN_SESSION_KEYRING: Final = 1
_READ: Final = 11
_USER_KEYRING: Final = -4
_SIZE: Final = 4096


def join_new_session() -> None:
    """This process gets a session keyring of its own, empty. Nothing happens where the kernel has
    no keyrings, or a filter forbids them."""
    _keyctl("join", _JOIN_SESSION_KEYRING, None)


def users_keys() -> bytes:
    """The serial numbers of the keys in the user keyring of this namespace and user."""
    buffer = ctypes.create_string_buffer(_SIZE)
    length = _keyctl("read", _READ, _USER_KEYRING, buffer, ctypes.c_size_t(_SIZE))
    return buffer.raw[: max(0, length)]


def _keyctl(name: str, *arguments: object) -> int:
    numbers = NUMBERS.get(os.uname().machine, {})
    try:
        return syscall(f"keyctl {name}", "", numbers["keyctl"], *arguments)
    except (KeyError, OSError):
        return 0
