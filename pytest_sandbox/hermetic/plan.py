"""What a sandbox's root looks like: planned from the host's, as data that the maker carries out.

Every directory of the host's root becomes the lower directory of an overlay of its own, as
overlayfs refuses, in a user namespace, a lower directory below which something is mounted: such a
directory is taken apart. /tmp, /var/tmp, /run and the home are fresh; what of them the run is made
of (the project, the interpreter, what sys.path names) is laid over them, copy-on-write, at its own
place. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pytest_sandbox.hermetic import network
from pytest_sandbox.hermetic.network import HOST

FRESH: Final = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/run": 0o755}
"""Directories that are empty in every sandbox, with their modes."""
SYSTEM: Final = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
"""What stays visible in / where only declared paths are."""
_KERNELS: Final = frozenset(("dev", "proc", "sys"))
_STAGES: Final = ("/dev/shm", "/mnt", "/media", "/srv", "/run", "/tmp")
_PIECES_MAX: Final = 200
"""A directory that falls into more pieces than this is bound whole, read-only."""
_RESOLVER: Final = "nameserver 127.0.0.1\n"
"""What asks for a name is answered at once: by nobody, or by the escape report's watcher."""
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass
class Plan:
    """Operations in order; `layout` numbers the writable mounts. `stage`: where to build it."""

    operations: list[tuple[object, ...]] = field(default_factory=list)
    layout: dict[str, str] = field(default_factory=dict)
    stage: str = "/dev/shm"
    network: str = network.OWN
    """Whose network it is in: see pytest_sandbox.hermetic.network."""

    def numbered(self, path: str) -> str:
        number = str(len(self.layout))
        self.layout[number] = path
        return number

    @property
    def spec(self) -> str:
        """A name for it that is equal where the sandboxes are interchangeable."""
        return json.dumps([self.operations, self.stage, self.network])


@dataclass(frozen=True)
class Host:
    """What of the machine and the run the plan depends on."""

    home: str
    visible: tuple[str, ...]
    """Absolute paths that stay visible, copy-on-write, wherever they lie."""
    sockets: tuple[str, ...] = ()
    """Paths that are bound as they are: the service's socket."""
    mounts: tuple[str, ...] = ()
    """Mount points of this process's namespace."""
    shared: tuple[str, ...] = ()
    """Paths whose writes are to stay."""
    temporary: str = "/tmp"
    """Where tempfile puts what is temporary."""

    @classmethod
    def here(
        cls, visible: Iterable[str], sockets: Iterable[str] = (), shared: Iterable[str] = ()
    ) -> Host:
        with open("/proc/self/mountinfo") as lines:
            mounts = [_unescaped(line.split(" ", 5)[4]) for line in lines]
        home = os.path.realpath(os.path.expanduser("~"))
        return cls(
            home,
            tuple(visible),
            tuple(sockets),
            tuple(dict.fromkeys(mounts)),
            tuple(shared),
            os.path.realpath(tempfile.gettempdir()),
        )


def build(host: Host, declared: Iterable[str] | None = None, *, network: str = network.OWN) -> Plan:
    """The plan of a sandbox. With `declared` paths, only those, the system's and `visible`
    ones are there; a declared file is read-only."""
    plan = Plan(network=network)
    visible = _outermost(os.path.realpath(path) for path in host.visible)
    wanted = visible
    if declared is not None:
        wanted = _outermost([*visible, *(os.path.realpath(path) for path in declared)])
    fresh = dict(FRESH)
    if host.home != "/" and not any(_below(host.home, path) for path in visible):
        fresh[host.home] = _mode(host.home, 0o700) or 0o700
    if not any(_below(host.temporary, path) or _below(path, host.temporary) for path in visible):
        fresh.setdefault(host.temporary, _mode(host.temporary, 0o700))
    plan.operations.append(("root", plan.numbered("/"), _directory_mode("/")))
    for name, path, kind in _entries():
        _plan_entry(plan, host, name, path, kind, fresh, hidden=declared is not None)
    for path in sorted(fresh):
        if not os.path.isdir(path) or os.path.realpath(path) != path:
            continue
        plan.operations.append(("fresh", plan.numbered(path), path, fresh[path]))
    for path in wanted:
        if _needs_its_own(path, fresh, hidden=declared is not None):
            _lay(plan, host, path)
    for path in host.sockets:
        if os.path.exists(path):
            plan.operations.append(("bind", path, path))
    for path in host.shared:
        plan.operations.append(("share", path, path))
    if network != HOST:
        plan.operations.append(("text", "/etc/resolv.conf", _RESOLVER))
    plan.stage = _stage([str(operation[-1]) for operation in plan.operations])
    return plan


def _plan_entry(
    plan: Plan, host: Host, name: str, path: str, kind: str, fresh: dict[str, int], *, hidden: bool
) -> None:
    """One entry of the host's root directory."""
    if kind == "link":
        plan.operations.append(("link", path, os.readlink(path)))
    elif name in _KERNELS:
        plan.operations.append((name, path))
        if name == "dev":
            plan.operations.append(("fresh", plan.numbered("/dev/shm"), "/dev/shm", 0o1777))
    elif path in fresh or (hidden and name not in SYSTEM):
        plan.operations.append(("directory", path, 0o755))
    elif kind == "directory":
        _lay(plan, host, path)


def _entries() -> Iterator[tuple[str, str, str]]:
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        if entry.is_symlink():
            yield entry.name, entry.path, "link"
        elif entry.is_dir():
            yield entry.name, entry.path, "directory"


def _lay(plan: Plan, host: Host, path: str) -> None:
    """Make what the host has at `path` appear there, copy-on-write as far as it goes."""
    if not os.path.isdir(path):
        if os.path.exists(path):
            plan.operations.append(("bind", path, path))
        return
    mode = _directory_mode(path)
    if not os.access(path, os.R_OK | os.X_OK):
        plan.operations.append(("directory", path, 0))
        return
    mounted = [point for point in host.mounts if point != path and _below(point, path)]
    if not mounted and not set(path) & set(":,\\"):
        if os.listdir(path):
            overlay = ("overlay", plan.numbered(path), path, mode, *_owner(path), path)
            plan.operations.append(overlay)
        else:
            plan.operations.append(("fresh", plan.numbered(path), path, mode))
        return
    pieces = _pieces(host, path, mounted)
    if not mounted or len(pieces) > _PIECES_MAX or path in mounted:
        plan.operations.append(("tree", path, path))
        return
    plan.operations.append(("fresh", plan.numbered(path), path, mode))
    for piece in pieces:
        if os.path.islink(piece):
            plan.operations.append(("link", piece, os.readlink(piece)))
        else:
            _lay(plan, host, piece)


def _pieces(host: Host, path: str, mounted: list[str]) -> list[str]:
    found = []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_symlink() or entry.is_dir() or entry.is_file():
            found.append(entry.path)
    return found


def _needs_its_own(path: str, fresh: Iterable[str], *, hidden: bool) -> bool:
    """Whether what is at `path` would be covered, or could not be written by copying it up."""
    if any(_below(covered, path) for covered in fresh):
        return False
    if hidden or any(_below(path, covered) for covered in fresh):
        top = path.split("/")[1]
        return top not in SYSTEM or not hidden
    return os.geteuid() != 0 and os.access(path, os.W_OK) and bool(foreign_parent(path))


def foreign_parent(path: str) -> str:
    """The first directory on the way to `path`, below the top one, whose owner or group is neither
    this user's: overlayfs cannot copy it up (EOVERFLOW). Empty if there is none."""
    at = "/" + path.split("/")[1]
    for part in path.split("/")[2:]:
        at = f"{at}/{part}"
        try:
            found = os.lstat(at)
        except OSError:
            return ""
        if found.st_uid != os.getuid() or found.st_gid != os.getgid():
            return at
    return ""


def _stage(taken: Iterable[str]) -> str:
    """A directory of the host that nothing of the plan lies in, to build below."""
    used = list(taken)
    for stage in _STAGES:
        there = os.path.isdir(stage) and not os.path.islink(stage)
        if there and not any(_below(path, stage) for path in used):
            return stage
    return "/proc"


def _outermost(paths: Iterable[str]) -> list[str]:
    """`paths`, less the root, what is not there and what lies below another, shortest first."""
    found: list[str] = []
    for path in sorted(set(paths), key=lambda path: (path.count("/"), path)):
        if path != "/" and os.path.exists(path) and not any(_below(path, one) for one in found):
            found.append(path)
    return found


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _mode(path: str, otherwise: int) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return otherwise


def _directory_mode(path: str) -> int:
    """The upper directory is ours, whoever has the lower one: what we may not write stays so."""
    mode = _mode(path, 0o755)
    return mode if os.access(path, os.W_OK) else mode & ~0o222


def _owner(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_uid, found.st_gid


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
