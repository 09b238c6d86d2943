"""The outer user namespace: which ids the service may give away, and how it enters.

Three kinds (user_namespaces(7)): `subids`, an ordinary user with a subordinate range, mapped once
by newuidmap(1) and newgidmap(1); `single`, an ordinary user alone; `root`, all that root has.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from sandboxd.linux import mount, namespaces

Kind = Literal["subids", "single", "root"]
_FULL: Final = 65536


@dataclass(frozen=True, slots=True)
class IdMap:
    """Extents are (inside, outside, count); `size` ids from 0 exist inside."""

    kind: Kind
    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        return min(
            max(inside + count for inside, _, count in ids) for ids in (self.uids, self.gids)
        )

    def nested(self) -> tuple[str, str]:
        """What is written to uid_map and gid_map of a container: the same ids once more.

        The first id stands alone and the rest follow, so that a map exists for the command's own
        user under every kind.
        """
        return _identity(self.uids), _identity(self.gids)


def choose() -> IdMap:
    """The widest map that this user can have on this machine."""
    if os.geteuid() == 0:
        return IdMap("root", _inherited("uid"), _inherited("gid"))
    uid, gid = os.getuid(), os.getgid()
    users, groups = subordinate_range("/etc/subuid"), subordinate_range("/etc/subgid")
    if users and groups and shutil.which("newuidmap") and shutil.which("newgidmap"):
        own = ((0, uid, 1), (1, *users)), ((0, gid, 1), (1, *groups))
        return IdMap("subids", *own)
    return single()


def single() -> IdMap:
    """The map that every user may write: id 0 inside is the user outside, nothing else exists."""
    return IdMap("single", ((0, os.getuid(), 1),), ((0, os.getgid(), 1),))


def subordinate_range(path: str) -> tuple[int, int] | None:
    """(first, count) of this user's first range of at least 65536 ids: subuid(5), subgid(5)."""
    names = {str(os.getuid())}
    try:
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pass
    try:
        with open(path) as lines:
            fields = [line.strip().split(":") for line in lines]
    except OSError:
        return None
    for field in fields:
        if len(field) == 3 and field[0] in names and int(field[2]) >= _FULL:
            return int(field[1]), _FULL
    return None


def complaint_about(idmap: IdMap) -> str:
    """Why a forked child cannot enter with this map, empty where it can.

    newuidmap(1) may be there without its set-user-ID bit, or no_new_privs may be on; a process that
    has found out by itself is stuck in a namespace without a map.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_outer_namespace(idmap)
        except OSError as error:
            os.write(tell, str(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(tell)
    with open(told, errors="replace") as pipe:
        complaint = pipe.read()
    os.waitpid(child, 0)
    return complaint


def enter_outer_namespace(idmap: IdMap) -> None:
    """Move this single-threaded process into a user and a mount namespace of its own, as id 0.

    A child that stays outside writes the map, since newuidmap(1) must run there. Mounts made
    outside later still arrive; mounts made here stay here. Raises OSError with the failing step.
    """
    _enter((idmap,))
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    mount.make_slave()


def enter_as_oneself(*, nested: bool = False) -> tuple[str, str]:
    """Move this single-threaded process into a user and a mount namespace, under its own ids.

    Every id is the same inside: this user's, and of a subordinate range where newuidmap(1) gives
    it; root's are all that root has. `nested`: this process has just entered another user's
    namespace of its own, where it is id 0, and the ids are those outside of that. Returns what is
    written to uid_map and gid_map of a namespace within, for the same ids again. Raises OSError.
    """
    _enter(_around() if nested else _as_oneself())
    return _same_again("uid"), _same_again("gid")


def _as_oneself() -> tuple[IdMap, ...]:
    """The identity maps that this user may have here, the widest first."""
    if os.geteuid() == 0:
        return (choose(),)
    maps = []
    for idmap in dict.fromkeys((choose(), single())):
        uids, gids = (
            tuple((outside, outside, count) for _, outside, count in ids)
            for ids in (idmap.uids, idmap.gids)
        )
        maps.append(IdMap(idmap.kind, uids, gids))
    return tuple(maps)


def _around() -> tuple[IdMap, ...]:
    """The map that gives each id of this namespace the number that it has outside."""
    uids, gids = (
        tuple((outside, inside, count) for inside, outside, count in _extents(kind))
        for kind in ("uid", "gid")
    )
    return (IdMap("root", uids, gids),)


def _same_again(kind: str) -> str:
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in _extents(kind))


def _enter(maps: tuple[IdMap, ...]) -> None:
    """Into fresh namespaces with the first of the maps that a child outside can write."""
    asked, told = os.pipe(), os.pipe()
    target = os.getpid()
    writer = os.fork()
    if writer == 0:
        _write_outer_map_in_child(maps, target, asked, told)
    try:
        os.close(asked[0])
        os.close(told[1])
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        os.write(asked[1], b"x")
        complaint = os.read(told[0], 4096).decode()
    finally:
        os.close(asked[1])
        os.close(told[0])
        os.waitpid(writer, 0)
    if complaint:
        raise PermissionError(f"map ids ({maps[-1].kind}): {complaint}")


def _write_outer_map_in_child(
    maps: tuple[IdMap, ...], target: int, asked: tuple[int, int], told: tuple[int, int]
) -> None:
    os.close(asked[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    detail = b""
    if os.read(asked[0], 1):
        for idmap in maps:
            try:
                _write_map(idmap, target)
                detail = b""
                break
            except (OSError, subprocess.CalledProcessError) as error:
                detail = getattr(error, "stderr", b"") or str(error).encode()
        os.write(told[1], detail[:4000])
    os._exit(0)


def _write_map(idmap: IdMap, target: int) -> None:
    if idmap.kind == "subids":
        for tool, extents in (("newuidmap", idmap.uids), ("newgidmap", idmap.gids)):
            numbers = [str(number) for extent in extents for number in extent]
            subprocess.run([tool, str(target), *numbers], check=True, capture_output=True)
        return
    if idmap.kind == "single":
        _write(f"/proc/{target}/setgroups", "deny")
    _write(f"/proc/{target}/uid_map", _lines(idmap.uids))
    _write(f"/proc/{target}/gid_map", _lines(idmap.gids))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _lines(extents: tuple[tuple[int, int, int], ...]) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents)


def _identity(extents: tuple[tuple[int, int, int], ...]) -> str:
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in extents)


def _inherited(kind: str) -> tuple[tuple[int, int, int], ...]:
    """Root's own ids, as far as the namespace that root lives in has them."""
    return tuple((inside, inside, count) for inside, _, count in _extents(kind))


def _extents(kind: str) -> Iterator[tuple[int, int, int]]:
    """(inside, outside, count) of this process's namespace: user_namespaces(7)."""
    with open(f"/proc/self/{kind}_map") as lines:
        for line in lines:
            inside, outside, count = (int(field) for field in line.split())
            yield inside, outside, count
