"""From facts to checks: what is missing, whether containers can do without, how to mend it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from sandboxd.doctor.facts import Facts
from sandboxd.doctor.probes import Outcome
from sandboxd.linux.syscall_numbers import NUMBERS

_KERNEL: Final = (5, 12)
"""mount_setattr(2); overlay in a user namespace came one version earlier."""
_APPARMOR: Final = "kernel.apparmor_restrict_unprivileged_userns"
_CLONE: Final = "kernel.unprivileged_userns_clone"
_COUNT: Final = "user.max_user_namespaces"
_NEEDED_FIRST: Final = "needs user namespaces first"
_RELAXED: Final = (
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined IMAGE"
)


class Check(NamedTuple):
    """One capability. `mend` is the exact command that would give it, where there is one."""

    name: str
    ok: bool
    required: bool
    detail: str
    mend: str = ""


def judge(facts: Facts) -> list[Check]:
    """All checks, in the order in which to mend what is missing."""
    return [check(facts) for check in _CHECKS]


def _kernel(facts: Facts) -> Check:
    version = tuple(int(number) for number in re.findall(r"\d+", facts.release)[:2])
    fit = version >= _KERNEL and facts.machine in NUMBERS
    detail = f"Linux {facts.release} on {facts.machine}"
    mend = "Linux 5.12 or newer on x86_64 or aarch64"
    return Check("kernel", fit, True, detail, "" if fit else mend)


def _outer_seccomp(facts: Facts) -> Check:
    if facts.seccomp != 2:
        return Check("outer seccomp", True, True, "no filter over this process")
    fit = _userns(facts).ok
    detail = "a filter lies over this process" + ("" if fit else " and refuses namespaces")
    return Check("outer seccomp", fit, True, detail, "" if fit else _RELAXED)


def _apparmor(facts: Facts) -> Check:
    return _sysctl("AppArmor", facts, _APPARMOR, bad="1", good="0")


def _unprivileged(facts: Facts) -> Check:
    return _sysctl("unprivileged user namespaces", facts, _CLONE, bad="0", good="1")


def _namespace_count(facts: Facts) -> Check:
    return _sysctl("user namespace limit", facts, _COUNT, bad="0", good="28633")


def _sysctl(name: str, facts: Facts, key: str, *, bad: str, good: str) -> Check:
    value = facts.sysctls.get(key)
    if value is None:
        return Check(name, True, True, f"{key} does not exist here")
    fit = value != bad or _userns(facts).ok
    return Check(name, fit, True, f"{key} = {value}", "" if fit else f"sudo sysctl -w {key}={good}")


def _user_namespaces(facts: Facts) -> Check:
    outcome = _userns(facts)
    causes = (_namespace_count, _unprivileged, _apparmor, _outer_seccomp)
    mends = [check.mend for check in (cause(facts) for cause in causes) if not check.ok]
    mend = mends[0] if mends else "a kernel with CONFIG_USER_NS, outside of any chroot"
    detail = "unshare, map and mount work" if outcome.ok else outcome.detail
    return Check("user namespaces", outcome.ok, True, detail, "" if outcome.ok else mend)


def _subordinate_ids(facts: Facts) -> Check:
    name = "subordinate ids"
    if facts.uid == 0:
        return Check(name, True, False, "root maps every id it has")
    missing = [tool for tool, state in facts.map_tools.items() if state == "missing"]
    powerless = [tool for tool, state in facts.map_tools.items() if state == "powerless"]
    without = ": containers know one user id only, and every file belongs to it"
    if missing:
        mend = facts.tool_package or f"install {' and '.join(missing)}"
        return Check(name, False, False, f"no {' and '.join(missing)}{without}", mend)
    if powerless:
        mend = f"sudo chmod u+s $(command -v {powerless[0]}) $(command -v {powerless[-1]})"
        return Check(name, False, False, f"{powerless[0]} has no privilege{without}", mend)
    if not facts.ranges:
        first, last = facts.free_range
        options = f"--add-subuids {first}-{last} --add-subgids {first}-{last}"
        mend = f"sudo usermod {options} {facts.user}"
        detail = f"/etc/subuid and /etc/subgid give {facts.user} fewer than 65536 ids"
        return Check(name, False, False, detail + without, mend)
    return Check(name, True, False, "65536 for users and for groups")


def _id_map(facts: Facts) -> Check:
    outcome = facts.outcomes["id map"]
    if outcome.ok:
        return Check("id map", True, True, f"kind {facts.kind}")
    if not _userns(facts).ok:
        return Check("id map", False, True, _NEEDED_FIRST, _user_namespaces(facts).mend)
    if facts.no_new_privs:
        detail = "no_new_privs is set on this process, so newuidmap gains nothing"
        return Check("id map", False, True, detail, "export SANDBOX_IDMAP=single")
    mend = _subordinate_ids(facts).mend or "export SANDBOX_IDMAP=single"
    return Check("id map", False, True, outcome.detail, mend)


def _namespaces(facts: Facts) -> Check:
    detail = "nested, by one clone3: {}"
    return _probed("namespaces", facts, "namespaces", detail, _RELAXED)


def _proc(facts: Facts) -> Check:
    fitting = "a fresh one mounts"
    mend = _RELAXED + "  (podman: --security-opt unmask=ALL)"
    return _probed("proc", facts, "proc", fitting, mend)


def _kernel_file_systems(facts: Facts) -> Check:
    mend = _RELAXED
    return _probed("sysfs, devpts, mqueue", facts, "kernel file systems", "fresh ones mount", mend)


def _overlay(facts: Facts) -> Check:
    fitting = f"with userxattr, upper directory in {facts.state}"
    mend = "export SANDBOX_ROOT=/a/directory/on/ext4/xfs/or/btrfs"
    return _probed("overlay", facts, "overlay", fitting, mend)


def _overlay_in_memory(facts: Facts) -> Check:
    return _probed("overlay in memory", facts, "overlay in memory", "upper directory on tmpfs", "")


def _whiteouts(facts: Facts) -> Check:
    mend = "export SANDBOX_ROOT=/a/directory/on/ext4/xfs/or/btrfs"
    return _probed("whiteouts", facts, "whiteout", f"can be made in {facts.state}", mend)


def _tmpfs_attributes(facts: Facts) -> Check:
    mend = "Linux 6.6 or newer"
    check = _probed("tmpfs attributes", facts, "attributes", "user.* on tmpfs", mend)
    without = ": a container cannot replace a whole directory of its image"
    return check._replace(required=False, detail=check.detail + ("" if check.ok else without))


def _calls(facts: Facts) -> Check:
    return _probed("system calls", facts, "calls", "{}", _RELAXED)


def _openat2(facts: Facts) -> Check:
    check = _probed("openat2", facts, "openat2", "paths resolve in one call", _RELAXED)
    without = ": paths are walked one component at a time"
    return check._replace(required=False, detail=check.detail + ("" if check.ok else without))


def _cgroups(facts: Facts) -> Check:
    missing = [name for name in ("memory", "pids", "cpu") if name not in facts.cgroups]
    if not missing:
        return Check("cgroups", True, False, "limits on memory, pids and cpu")
    detail = f"no limit on {' and '.join(missing)} can be enforced"
    mend = "start the service as root, or in a unit with Delegate=yes"
    if facts.user_manager:
        run = "systemd-run --user --unit=sandboxd -p Delegate=yes"
        mend = f"{run} {sys.executable} -m sandboxd serve"
    return Check("cgroups", False, False, detail, mend)


def _userns(facts: Facts) -> Outcome:
    return facts.outcomes["user namespace"]


def _probed(name: str, facts: Facts, probe: str, fitting: str, mend: str) -> Check:
    """A required check that is one probe; without user namespaces, those are to be mended first."""
    outcome = facts.outcomes[probe]
    if outcome.ok:
        return Check(name, True, True, fitting.format(outcome.detail))
    if not _userns(facts).ok:
        return Check(name, False, True, _NEEDED_FIRST, _user_namespaces(facts).mend)
    return Check(name, False, True, outcome.detail, mend)


_CHECKS: Final[tuple[Callable[[Facts], Check], ...]] = (
    _kernel,
    _outer_seccomp,
    _apparmor,
    _unprivileged,
    _namespace_count,
    _user_namespaces,
    _subordinate_ids,
    _id_map,
    _calls,
    _openat2,
    _namespaces,
    _proc,
    _kernel_file_systems,
    _overlay,
    _overlay_in_memory,
    _whiteouts,
    _tmpfs_attributes,
    _cgroups,
)
