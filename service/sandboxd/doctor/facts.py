"""What is known of this machine and user: files read and probes made, nothing judged."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sandboxd.doctor import probes
from sandboxd.doctor.probes import Outcome, attempt, inside
from sandboxd.linux import cgroup, idmap
from sandboxd.paths import state_root

SYSCTLS: Final = (
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
)
_PACKAGES: Final = {
    "apt-get": "sudo apt-get install -y uidmap",
    "dnf": "sudo dnf install -y shadow-utils",
    "zypper": "sudo zypper install -y shadow",
    "apk": "sudo apk add shadow-uidmap",
    "pacman": "sudo pacman -S --noconfirm shadow",
}
_FULL: Final = 65536


class Facts(NamedTuple):
    """The input of every check."""

    machine: str
    release: str
    uid: int
    user: str
    sysctls: Mapping[str, str]
    """Without those that this kernel does not have."""
    seccomp: int
    """Mode of the filter that this process itself runs under: 2 is an outer container's."""
    no_new_privs: bool
    map_tools: Mapping[str, str]
    """newuidmap and newgidmap: `ok`, `missing` or `powerless` (neither set-user-ID nor capable)."""
    tool_package: str
    """The command that installs them; empty when no known package manager is here."""
    ranges: bool
    """Whether subuid(5) and subgid(5) give this user 65536 ids."""
    free_range: tuple[int, int]
    """First and last of 65536 ids that neither file has given away."""
    kind: idmap.Kind
    cgroups: tuple[str, ...]
    """Controllers that a service started from here would get."""
    user_manager: bool
    """Whether systemd runs for this user."""
    state: str
    """The directory that the state root is in, or would be made in."""
    outcomes: Mapping[str, Outcome]


def collect() -> Facts:
    """Read and probe. Every probe is a child of its own; this process stays as it is."""
    system, status = os.uname(), _status()
    ids, state = _id_map(), _existing(state_root())
    return Facts(
        machine=system.machine,
        release=system.release,
        uid=os.getuid(),
        user=_user_name(),
        sysctls={name: value for name in SYSCTLS if (value := _sysctl(name))},
        seccomp=int(status.get("Seccomp", "0")),
        no_new_privs=status.get("NoNewPrivs") == "1",
        map_tools={tool: _map_tool(tool) for tool in ("newuidmap", "newgidmap")},
        tool_package=next((how for tool, how in _PACKAGES.items() if shutil.which(tool)), ""),
        ranges=all(map(idmap.subordinate_range, ("/etc/subuid", "/etc/subgid"))),
        free_range=_free_range(),
        kind=ids.kind,
        cgroups=tuple(name for name in cgroup.CONTROLLERS if cgroup.writable((name,))),
        user_manager=os.path.isdir(f"/run/user/{os.getuid()}/systemd"),
        state=state,
        outcomes=_outcomes(ids, state),
    )


def _id_map() -> idmap.IdMap:
    """The one that `sandboxd serve` would take."""
    return idmap.single() if os.environ.get("SANDBOX_IDMAP") == "single" else idmap.choose()


def _outcomes(ids: idmap.IdMap, state: str) -> dict[str, Outcome]:
    """Probe to outcome. A wide map that fails is judged once: the rest goes without."""
    mapped = attempt(inside(probes.tmpfs, ids))
    ids = ids if mapped.ok else idmap.single()
    wanted = {
        "calls": probes.missing_calls,
        "overlay in memory": probes.overlay_in_memory,
        "attributes": probes.tmpfs_attributes,
        "overlay": probes.overlay_on(state),
        "whiteout": probes.whiteout_on(state),
        "namespaces": probes.container(()),
        "proc": probes.container(("proc",)),
        "kernel file systems": probes.container(("sysfs", "devpts", "mqueue")),
    }
    return {
        "user namespace": attempt(probes.user_namespace),
        "id map": mapped,
        "openat2": attempt(probes.openat2),
        **{name: attempt(inside(probe, ids)) for name, probe in wanted.items()},
    }


def _status() -> dict[str, str]:
    with open("/proc/self/status") as lines:
        pairs = (line.partition(":") for line in lines)
        return {key: value.strip() for key, _, value in pairs}


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _map_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        return "missing"
    found = os.stat(path)
    if found.st_mode & stat.S_ISUID and found.st_uid == 0:
        return "ok"
    try:
        return "ok" if os.getxattr(path, "security.capability") else "powerless"
    except OSError:
        return "powerless"


def _free_range() -> tuple[int, int]:
    first = 100000
    for path in ("/etc/subuid", "/etc/subgid"):
        for given, count in _given(path):
            first = max(first, given + count)
    return first, first + _FULL - 1


def _given(path: str) -> list[tuple[int, int]]:
    try:
        fields = [line.split(":") for line in Path(path).read_text().splitlines()]
    except OSError:
        return []
    return [(int(first), int(count)) for _, first, count in (f for f in fields if len(f) == 3)]


def _existing(path: Path) -> str:
    return str(next(each for each in (path, *path.parents) if each.is_dir()))
