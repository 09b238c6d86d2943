"""Control groups: a subtree of our own, groups with limits in it, and what happened there.

cgroups(7). Version 2 where its one hierarchy has the controllers (a subtree that systemd delegated,
or root's), else version 1's separate hierarchies, which only root may use; a hybrid machine has its
controllers in version 1. Where neither is ours, `claim` gives None and no limit can be enforced.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sandboxd.linux.cgroup_limits import Limits, Setting, settings

CONTROLLERS: Final = ("memory", "pids", "cpu")

_KILL_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Group:
    """A group with its limits: one directory in version 2, one for each controller in version 1."""

    directories: tuple[str, ...]

    def attach(self, pid: int) -> None:
        """Move a process here; its later children follow. Raises OSError."""
        for directory in self.directories:
            _write(f"{directory}/cgroup.procs", str(pid))

    def processes(self) -> tuple[int, ...]:
        """The pids inside, as this process's pid namespace numbers them."""
        return _processes(self.directories[0])

    def kill(self) -> None:
        """SIGKILL to all inside: cgroup.kill (Linux 5.14), or each in turn until none forks on."""
        try:
            _write(f"{self.directories[0]}/cgroup.kill", "1")
        except FileNotFoundError:
            self._kill_each()

    def _kill_each(self) -> None:
        for _ in range(_KILL_ROUNDS):
            found = self.processes()
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here because memory ran out."""
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                count = _counter(f"{directory}/{name}", "oom_kill")
                if count is not None:
                    return count
        return 0

    def remove(self) -> None:
        """Remove the empty group; one that is gone already is fine. OSError(EBUSY) if not empty."""
        for directory in self.directories:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue


@dataclass(frozen=True, slots=True)
class Subtree:
    """A directory of ours in the hierarchy of each controller that we have."""

    version: int
    controllers: Mapping[str, str]
    """Controller to our directory in its hierarchy."""

    def missing(self, limits: Limits) -> tuple[str, ...]:
        """The controllers that `limits` needs and that we do not have."""
        needed = dict.fromkeys(each.controller for each in settings(limits, self.version))
        return tuple(name for name in needed if name not in self.controllers)

    def create(self, name: str, limits: Limits) -> Group:
        """A new group under `limits`; nothing stays behind if that fails. Raises OSError.

        KeyError for a controller that `missing` would have named.
        """
        wanted = settings(limits, self.version)
        used = {self.controllers[each.controller] for each in wanted}
        made: list[str] = []
        try:
            for directory in sorted(used):
                os.mkdir(f"{directory}/{name}")
                made.append(f"{directory}/{name}")
            for setting in wanted:
                _apply(f"{self.controllers[setting.controller]}/{name}", setting)
        except OSError:
            Group(tuple(made)).remove()
            raise
        return Group(tuple(made))

    def sweep(self) -> None:
        """Kill and remove what is in it: leftovers of a service that was killed, for example.

        A group whose processes still end stays for the next sweep.
        """
        for directory in dict.fromkeys(self.controllers.values()):
            for entry in [*os.scandir(directory)]:
                if entry.is_dir():
                    _kill_and_remove(Group((entry.path,)))

    def remove(self) -> None:
        """Sweep, then remove the subtree itself. OSError(EBUSY) while a process still ends."""
        self.sweep()
        Group(tuple(dict.fromkeys(self.controllers.values()))).remove()


def _kill_and_remove(group: Group) -> None:
    group.kill()
    try:
        group.remove()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def claim(name: str, controllers: Sequence[str] = CONTROLLERS) -> Subtree | None:
    """Our subtree `name` beneath this process's own cgroups, made or found, and swept.

    None where no controller is ours. `name` must belong to this service alone. Version 2 keeps
    processes out of groups that have controllers for their children: this process, and in a unit
    with Delegate= all of the unit, moves to a leaf. Claim before the first child is forked.
    """
    subtree = _claim_unified(name, controllers) or _claim_separate(name, controllers)
    if subtree:
        subtree.sweep()
    return subtree


def writable(controllers: Sequence[str] = CONTROLLERS) -> bool:
    """Whether `claim` would give every one of the controllers; nothing is changed."""
    if any(set(controllers) <= set(found) for _, _, found in _unified_places(controllers)):
        return True
    return len(dict(_separate_places(controllers))) == len(controllers)


def _claim_unified(name: str, controllers: Sequence[str]) -> Subtree | None:
    for parent, movers, found in _unified_places(controllers):
        leaf, directory = f"{parent}/{name}-service", f"{parent}/{name}"
        try:
            _move(movers, leaf)
            _enable(parent, found)
            os.makedirs(directory, exist_ok=True)
        except OSError:
            _move_back(movers, leaf, parent)
            continue
        return Subtree(2, dict.fromkeys(found, directory))
    return None


def _unified_places(controllers: Sequence[str]) -> Iterator[tuple[str, list[int], list[str]]]:
    """(directory, processes that must leave it, controllers) where we may make groups."""
    for own in _own_directories("cgroup2"):
        for directory in _writable_ancestors(own):
            available = _read(f"{directory}/cgroup.controllers").split()
            found = [name for name in controllers if name in available]
            movers = _must_leave(directory, found)
            if found and movers is not None:
                yield directory, movers, found


def _must_leave(directory: str, controllers: list[str]) -> list[int] | None:
    """The processes in the way of the children's controllers; None when others own them."""
    if not os.path.exists(f"{directory}/cgroup.type"):
        # The root of the hierarchy alone has no type, and may hold processes beside its children.
        return []
    if set(controllers) <= set(_read(f"{directory}/cgroup.subtree_control").split()):
        return []
    inside = _processes(directory)
    mine = set(inside) <= {os.getpid()} or _is_delegated(directory)
    return [*inside] if mine else None


def _is_delegated(directory: str) -> bool:
    """Whether systemd has left this unit's cgroup to the unit: systemd.resource-control(5)."""
    try:
        return os.getxattr(directory, "user.delegate") == b"1"
    except OSError:
        return False


def _move(processes: Sequence[int], directory: str) -> None:
    if processes:
        os.makedirs(directory, exist_ok=True)
    for pid in processes:
        _write(f"{directory}/cgroup.procs", str(pid))


def _enable(directory: str, controllers: list[str]) -> None:
    request = " ".join(f"+{name}" for name in controllers)
    _write(f"{directory}/cgroup.subtree_control", request)


def _move_back(processes: Sequence[int], leaf: str, parent: str) -> None:
    try:
        _move(processes, parent)
        os.rmdir(leaf)
    except OSError:
        # A process that ended in between, or a leaf that was there before: both may stay.
        return


def _claim_separate(name: str, controllers: Sequence[str]) -> Subtree | None:
    found = {}
    for controller, parent in _separate_places(controllers):
        os.makedirs(f"{parent}/{name}", exist_ok=True)
        found[controller] = f"{parent}/{name}"
    return Subtree(1, found) if found else None


def _separate_places(controllers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(controller, directory of version 1 where we may make groups)."""
    for controller in controllers:
        for own in _own_directories("cgroup", controller):
            if os.access(own, os.W_OK):
                yield controller, own


def _writable_ancestors(directory: str) -> Iterator[str]:
    while os.access(f"{directory}/cgroup.procs", os.W_OK):
        yield directory
        directory = os.path.dirname(directory)


def _own_directories(fstype: str, controller: str = "") -> list[str]:
    """Where this process is: proc_pid_mountinfo(5) joined with proc_pid_cgroup(5)."""
    places = []
    for root, point, kind, options in _cgroup_mounts():
        if kind == fstype and (not controller or controller in options):
            path = _own_path(controller)
            inside = path.removeprefix(root.rstrip("/")) if root != "/" else path
            places.append(f"{point}{inside}".rstrip("/"))
    return places


def _cgroup_mounts() -> Iterator[tuple[str, str, str, list[str]]]:
    """(root in the hierarchy, mount point, file system, its options)."""
    for line in _read("/proc/self/mountinfo").splitlines():
        own, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            fields = own.split()
            yield fields[3], fields[4], kind, options.split(",")


def _own_path(controller: str) -> str:
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return "/"


def _apply(directory: str, setting: Setting) -> None:
    try:
        _write(f"{directory}/{setting.file}", setting.value)
    except FileNotFoundError:
        if not setting.optional:
            raise


def _counter(path: str, name: str) -> int | None:
    try:
        text = _read(path)
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _processes(directory: str) -> tuple[int, ...]:
    """Without 0, which stands for every process of a foreign pid namespace: kill(2) hits us."""
    return tuple(int(pid) for pid in _read(f"{directory}/cgroup.procs").split() if pid != "0")


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"write {text!r} to {path}: {why}") from None
    finally:
        os.close(fd)
