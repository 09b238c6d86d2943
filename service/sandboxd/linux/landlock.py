"""Landlock: what an unprivileged process gives up for itself and its children: landlock(7).

Where user namespaces are denied, this still forbids writes outside chosen directories and TCP
connections. A right that a ruleset handles is denied everywhere but beneath the paths, or for the
ports, that rules allow it for. Each version of the interface (`abi`) adds rights; what this kernel
does not know is left out, and `Confined` says what was in force.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from sandboxd.linux.process import set_no_new_privs
from sandboxd.linux.syscall_numbers import NUMBERS
from sandboxd.linux.syscalls import syscall

_NUMBERS: Final = NUMBERS["x86_64"]
"""The three calls have one number on every architecture (5.13)."""
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

WRITE_FILE: Final = 1 << 1
TRUNCATE: Final = 1 << 14
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE: Final = sum(1 << bit for bit in range(6, 13))
"""MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK and MAKE_SYM."""
_REFER: Final = 1 << 13
CONNECT_TCP: Final = 1 << 1
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1
_SCOPE_SIGNAL: Final = 2

_OF_FILES: Final = WRITE_FILE | TRUNCATE
"""The rights that a rule about a file, no directory, may name."""

ABI_REFER: Final = 2
"""Linux 5.19: renames and links between directories; before it none may cross a directory."""
ABI_TRUNCATE: Final = 3
"""Linux 6.2."""
ABI_NET: Final = 4
"""Linux 6.7: TCP."""
ABI_SCOPE: Final = 6
"""Linux 6.12: abstract unix sockets and signals stay within the domain."""


class Confined(NamedTuple):
    """What `confine` forbids: always writes; TCP and signals where the kernel can."""

    abi: int
    tcp: bool
    scoped: bool


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPortAttr(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION; 1 is Linux 5.13.

    Raises OSError: ENOSYS without Landlock in the kernel, EOPNOTSUPP where it was not enabled at
    boot.
    """
    number = _NUMBERS["landlock_create_ruleset"]
    size = ctypes.c_size_t(0)
    return syscall("landlock_create_ruleset", "", number, None, size, _CREATE_RULESET_VERSION)


def confined(*, tcp: bool = True, version: int | None = None) -> Confined:
    """What `confine` would forbid on this kernel; `version` stands in for the kernel's own."""
    found = abi() if version is None else version
    return Confined(found, tcp and found >= ABI_NET, found >= ABI_SCOPE)


def confine(
    writable: Iterable[str],
    *,
    tcp: bool = True,
    ports: Iterable[int] = (),
    version: int | None = None,
) -> Confined:
    """Forbid this thread, for good, to write outside `writable` and, with `tcp`, to connect by TCP.

    `writable` are existing directories and files; TCP to `ports` stays allowed. Descriptors that
    are open already keep their rights. Children inherit it, programs with set-user-ID gain nothing
    (PR_SET_NO_NEW_PRIVS). Neither UDP nor unix sockets with a path are covered, nor chmod(2),
    chown(2), utime(2) and attributes: landlock(7), section CAVEATS. Raises OSError.
    """
    limits = confined(tcp=tcp, version=version)
    handled = _write_rights(limits.abi)
    ruleset = _create(handled, limits)
    try:
        for path in writable:
            _allow_path(ruleset, path, handled)
        for port in ports if limits.tcp else ():
            _allow_port(ruleset, port)
        set_no_new_privs()
        syscall("landlock_restrict_self", "", _NUMBERS["landlock_restrict_self"], ruleset, 0)
    finally:
        os.close(ruleset)
    return limits


def _write_rights(version: int) -> int:
    rights = WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE
    rights |= _REFER if version >= ABI_REFER else 0
    return rights | (TRUNCATE if version >= ABI_TRUNCATE else 0)


def _create(handled: int, limits: Confined) -> int:
    """A descriptor of an empty ruleset. Fields that the kernel does not know must not be sent."""
    scope = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if limits.scoped else 0
    attr = _RulesetAttr(handled, CONNECT_TCP if limits.tcp else 0, scope)
    length = 24 if limits.abi >= ABI_SCOPE else 16 if limits.abi >= ABI_NET else 8
    number = _NUMBERS["landlock_create_ruleset"]
    return syscall(
        "landlock_create_ruleset", "", number, ctypes.byref(attr), ctypes.c_size_t(length), 0
    )


def _allow_path(ruleset: int, path: str, handled: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = handled if stat.S_ISDIR(os.fstat(fd).st_mode) else handled & _OF_FILES
        rule = ctypes.byref(_PathBeneathAttr(rights, fd))
        number = _NUMBERS["landlock_add_rule"]
        syscall("landlock_add_rule", path, number, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)


def _allow_port(ruleset: int, port: int) -> None:
    rule = ctypes.byref(_NetPortAttr(CONNECT_TCP, port))
    syscall(
        "landlock_add_rule",
        f"port {port}",
        _NUMBERS["landlock_add_rule"],
        ruleset,
        _RULE_NET_PORT,
        rule,
        0,
    )
