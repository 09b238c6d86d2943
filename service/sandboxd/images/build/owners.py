"""`--chown=USER[:GROUP]`, names looked up in the passwd and group files of the layers below.

The files belong to an image that nobody vouches for: found inside the union, they must be regular,
never block, and are read up to a bound (CVE-2024-9676).
"""

from __future__ import annotations

import stat
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.images.build.union import Union

_LIMIT: Final = 1 << 20
_MAX_ID: Final = 0xFFFF_FFFE


def owner_of(union: Union, text: str) -> tuple[int, int]:
    """uid and gid; a group that is not said has the user's number. Raises BadRequest."""
    user, colon, group = text.partition(":")
    uid = _id(union, user or "0", "passwd")
    return uid, _id(union, group, "group") if colon and group else uid


def _id(union: Union, name: str, table: str) -> int:
    if name.isascii() and name.isdigit():
        if int(name) > _MAX_ID:
            raise BadRequest(f"--chown: id {name} is out of range")
        return int(name)
    for line in _read(union, f"/etc/{table}").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise BadRequest(f"--chown: no {name!r} in /etc/{table} of the image")


def _read(union: Union, path: str) -> str:
    with union.at(union.resolve(path)) as node:
        if node is None or not stat.S_ISREG(node.status.st_mode):
            return ""
        with open(node.open(), "rb") as file:
            return file.read(_LIMIT).decode(errors="surrogateescape")
