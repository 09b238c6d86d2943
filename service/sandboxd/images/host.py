"""The image `host`: the machine's own root, read-only, secrets left out.

The plan is made at first use and again when `/` or the mounts below it change. Beside it stands
what is shown on request: interpreters and virtual environments in home directories, for example.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sandboxd.errors import BadRequest
from sandboxd.images import host_plan, masks
from sandboxd.images.host_layers import stacked
from sandboxd.images.host_plan import TopLevel
from sandboxd.images.image import HOST, Image
from sandboxd.images.platform import architecture
from sandboxd.images.secrets import hidden_paths, is_below, socket_paths
from sandboxd.launcher.spec import HostRoot
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store

_MOUNTINFO: Final = "/proc/self/mountinfo"
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IDENTITY: Final = ("/etc/machine-id", "/etc/os-release")
_PACKAGES: Final = (
    "/var/lib/dpkg/status",
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/lib/apk/db/installed",
    "/var/lib/pacman/local",
    "/nix/var/nix/db/db.sqlite",
)
_ROOTS_MAX: Final = 64
_FRESH: Final = 1.0
"""Seconds for which what was shown, and which sockets were hidden, counts as known."""


@dataclass(frozen=True, slots=True)
class _Plan:
    key: tuple[int, frozenset[str]]
    top: TopLevel
    hidden: frozenset[str]
    mask: Path | None


class HostImage:
    """`show` are paths to show to every container, `hide` directories of the service itself."""

    def __init__(
        self, store: Store, idmap: IdMap, show: Sequence[str], hide: Sequence[str]
    ) -> None:
        self._store, self._privileged = store, idmap.kind == "root"
        self._show = tuple(show)
        self._own = tuple(os.path.realpath(each) for each in (*hide, str(store.root)))
        self._mutex = threading.Lock()
        self._mountinfo = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._mountinfo, select.POLLPRI)
        self._with_mounts: frozenset[str] | None = None
        self._plan: _Plan | None = None
        self._roots: dict[tuple[str, ...], tuple[float, HostRoot]] = {}
        self.image = _image()
        masks.sweep(store)

    def close(self) -> None:
        os.close(self._mountinfo)

    def root(self, show: Sequence[str] = (), layers: Sequence[Path] = ()) -> HostRoot:
        """What the launcher needs, with `layers` on top, topmost first.

        Raises BadRequest for a path that cannot be shown, Conflict for a layer that cannot be.
        """
        root = self._shown_root(show)
        return stacked(root, layers) if layers else root

    def _shown_root(self, show: Sequence[str]) -> HostRoot:
        wanted = (*self._show, *show)
        with self._mutex:
            plan = self._current()
            made, root = self._roots.get(wanted, (0.0, None))
            if root is None or time.monotonic() - made > _FRESH:
                root = self._root(plan, wanted)
                self._roots[wanted] = (time.monotonic(), root)
                while len(self._roots) > _ROOTS_MAX:
                    del self._roots[next(iter(self._roots))]
            return root

    def lowers(self) -> tuple[Path, ...]:
        """The mask over `/`, to copy visible content from; nothing where masks cannot be made."""
        with self._mutex:
            mask = self._current().mask
        return () if mask is None else (mask, Path("/"))

    def _current(self) -> _Plan:
        key = (os.stat("/").st_mtime_ns, self._mounts())
        if self._plan is None or self._plan.key != key:
            self._plan = self._made(key)
            self._roots.clear()
        return self._plan

    def _mounts(self) -> frozenset[str]:
        """poll(2) on mountinfo tells of changes since the last look: proc_pid_mountinfo(5)."""
        if self._with_mounts is None or self._changes.poll(0):
            mountinfo = Path(_MOUNTINFO).read_text(errors="surrogateescape")
            self._with_mounts = host_plan.with_mounts(mountinfo, self._own)
        return self._with_mounts

    def _made(self, key: tuple[int, frozenset[str]]) -> _Plan:
        found = hidden_paths(self._own, privileged=self._privileged)
        # The mask lies in the state, and overlayfs refuses a layer inside another one (ELOOP).
        bound = key[1] | {os.path.realpath(self._store.root).split("/")[1]}
        top = host_plan.plan(host_plan.root_entries(), bound, found)
        empty = {f"/{name}" for name in top.empty}
        hidden = frozenset(path for path in found if not is_below(path, empty))
        return _Plan(key, top, hidden, masks.build(self._store, hidden | empty))

    def _root(self, plan: _Plan, wanted: Sequence[str]) -> HostRoot:
        top, shown = plan.top, self._shown(plan, wanted)
        overlays = tuple((name, _lowers(plan.mask, name)) for name in top.overlays)
        hidden = self._hidden(plan, shown)
        return HostRoot(overlays, top.binds, top.links, top.empty, shown, hidden)

    def _shown(self, plan: _Plan, asked: Iterable[str]) -> tuple[str, ...]:
        """The paths that need a bind of their own, each once, none inside another."""
        wanted = {place for path in asked for place in self._places(plan, path)}
        return tuple(path for path in sorted(wanted) if not is_below(path, wanted - {path}))

    def _places(self, plan: _Plan, path: str) -> set[str]:
        """Where `path` and what it leads to must appear: containers may use either name."""
        plain = os.path.normpath(path)
        if not path.startswith("/") or plain.lstrip("/").split("/")[0] in (
            "",
            "proc",
            "sys",
            "dev",
        ):
            raise BadRequest(f"cannot show {path!r}", "an absolute path of files is needed")
        if not os.path.exists(plain):
            raise BadRequest(f"cannot show {path!r}", "it does not exist")
        real = os.path.realpath(plain)
        if is_below(real, self._own):
            raise BadRequest(f"cannot show {path!r}", "it lies in the service's own directories")
        links = {name for name, _ in plan.top.links}
        places = {real} if plain.split("/")[1] in links else {plain, real}
        return {place for place in places if not plan.top.shows(place, plan.hidden)}

    def _hidden(self, plan: _Plan, shown: tuple[str, ...]) -> tuple[str, ...]:
        """What binds would let through, and all that has to be hidden where there is no mask.

        Through a read-only bind one can connect to a socket; through overlayfs one cannot.
        """
        binds = {f"/{name}" for name in plan.top.binds}
        if plan.mask is None:
            binds |= {f"/{name}" for name in plan.top.overlays}
        in_binds = {path for path in plan.hidden if is_below(path, binds)}
        candidates = {*self._own, *socket_paths()}
        in_shown = {path for path in candidates if is_below(path, (*shown, *binds))}
        asked_for = {path for path in in_binds - set(self._own) if is_below(path, shown)}
        return tuple(sorted((in_binds - asked_for) | in_shown))


def _lowers(mask: Path | None, name: str) -> str:
    if mask is None or not (mask / name).is_dir():
        return f"/{name}"
    return f"{mask}/{name}:/{name}"


def _image() -> Image:
    """The id covers the machine, its system and its packages: a recipe is built again after an
    upgrade, and is found again after a restart."""
    stamps = {path: _stamp(path) for path in _PACKAGES if os.path.exists(path)}
    newest = max((modified for _, modified in stamps.values()), default=0)
    created = datetime.fromtimestamp(newest // 10**9, UTC).isoformat().replace("+00:00", "Z")
    identity: dict[str, Any] = {path: _content(path) for path in _IDENTITY}
    identity |= {"architecture": architecture(), "packages": stamps}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    config = {
        "architecture": architecture(),
        "config": {"Env": [_PATH], "Cmd": ["/bin/sh"]},
        "created": created,
        "history": [{"created": created, "comment": "this machine's own root, read-only"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return Image(f"sha256:{digest}", config, (), (f"{HOST}:latest",), created, 0, is_host=True)


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return (0 if stat.S_ISDIR(status.st_mode) else status.st_size), status.st_mtime_ns


def _content(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
