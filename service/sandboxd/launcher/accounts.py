"""Names to ids, from the container's own /etc/passwd and /etc/group: passwd(5), group(5).

The files belong to an image that nobody vouches for: they are opened inside the root, must be
regular, never block, and are read up to a bound (CVE-2024-9676).
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from sandboxd.linux.openat2 import open_beneath

_LIMIT: Final = 1 << 20
_MAX_ID: Final = 0xFFFF_FFFE


class UnknownUser(ValueError):
    """A user or group name that the container does not have, or an id out of range."""


class Account(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(root: int, user: str, extra_groups: tuple[str, ...] = ()) -> Account:
    """The account for Docker's `user[:group]`, each a name or a number, in the tree at `root`.

    Raises UnknownUser. An empty user is root. A number without an entry gets group 0 and home /.
    """
    name, colon, group = user.partition(":")
    entry = _find_user(root, name or "0")
    gid = _group_id(root, group) if colon and group else entry.gid
    members = () if colon and group else _memberships(root, entry.name)
    extra = tuple(_group_id(root, each) for each in extra_groups)
    return Account(entry.uid, gid, tuple(dict.fromkeys((*members, *extra))), entry.home)


class _User(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


def _find_user(root: int, wanted: str) -> _User:
    number = _number(wanted)
    for fields in _table(root, "etc/passwd", 7):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == wanted or uid == number:
            return _User(fields[0], uid, gid, fields[5] or "/")
    if number is None:
        raise UnknownUser(f"unable to find user {wanted}: no matching entries in passwd file")
    return _User("", number, 0, "/root" if number == 0 else "/")


def _group_id(root: int, wanted: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for fields in _table(root, "etc/group", 4):
        gid = _number(fields[2])
        if fields[0] == wanted and gid is not None:
            return gid
    raise UnknownUser(f"unable to find group {wanted}: no matching entries in group file")


def _memberships(root: int, name: str) -> tuple[int, ...]:
    if not name:
        return ()
    found = []
    for fields in _table(root, "etc/group", 4):
        gid = _number(fields[2])
        if gid is not None and name in fields[3].split(","):
            found.append(gid)
    return tuple(found)


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit():
        return None
    if int(text) > _MAX_ID:
        raise UnknownUser(f"id {text} is out of range: uids and gids end at {_MAX_ID}")
    return int(text)


def _table(root: int, path: str, width: int) -> list[list[str]]:
    text = _read_regular(root, path)
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= width]


def _read_regular(root: int, path: str) -> str:
    try:
        fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return os.read(fd, _LIMIT).decode(errors="surrogateescape")
    finally:
        os.close(fd)
