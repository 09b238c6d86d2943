"""What was written in a sandbox, read off the upper directories of its overlays from outside.

An upper directory holds exactly what differs from the host: new files, copies of changed ones, and
whiteouts for deleted ones. What was opened for writing and left as it was is no difference. What a
test made and removed again leaves no trace, which is as it should be.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Final, NamedTuple

from pytest_sandbox.hermetic.escapes.escape import Escape
from sandboxd.linux.xattrs import is_opaque

IGNORED: Final = (
    *("__pycache__", "*.pyc", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"),
    *(".coverage", ".coverage.*", "coverage.xml", "pytest-of-*", "pytest-cache-files-*"),
)
"""Names, at any depth, that no report mentions: caches, coverage data, pytest's own tmp_path."""
_MOST: Final = 20_000
"""Entries that are looked at: a test that writes more has been caught long before."""
_TICK: Final = 20_000_000
"""Nanoseconds: a change that is younger may be followed by one with the same time."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Signature = tuple[int, int, int, int]


class _Entry(NamedTuple):
    """Of the upper directory `number`, new or changed; `path` is where the sandbox shows it."""

    number: str
    path: str
    found: os.stat_result
    opaque: bool
    before: _Signature | None


class Writes:
    """The uppers of one sandbox, and what has been told of them already."""

    def __init__(
        self,
        uppers: int,
        layout: Mapping[str, str],
        fresh: Container[str] = (),
        ignored: Sequence[str] = IGNORED,
        covered: Container[str] = (),
    ) -> None:
        """`uppers` and `layout` as in Shell; `fresh`: the numbers of those with nothing of the
        host's below. `ignored`: patterns (fnmatch) for names, or, with a slash in them, for whole
        paths. `covered`: paths that something is mounted on. What is there now is nobody's."""
        self._layout, self._fresh, self._covered = layout, fresh, covered
        self._uppers = uppers
        self._roots = [(number, f"{number}/upper", place) for number, place in layout.items()]
        self._ignored_name = _matcher(each for each in ignored if "/" not in each)
        self._ignored_path = _matcher(each for each in ignored if "/" in each)
        self._known: dict[tuple[str, str], _Signature] = {}
        """By number and path: one path may lie in several uppers, an overlay's and that of what it
        is mounted on."""
        self._still: dict[tuple[str, str], int] = {}
        """Directories of whose entries none can change, with the time of their last change."""
        self._scan()

    def fresh(self) -> list[Escape]:
        """What was written since the last call, one escape for each new tree."""
        escapes: list[Escape] = []
        inside, made = 0, ""
        for entry in self._scan():
            if made and entry.path.startswith(made):
                inside += 1
                continue
            if verb := self._verb(entry):
                if inside:
                    escapes[-1] = escapes[-1]._replace(detail=_count(inside))
                directory = stat.S_ISDIR(entry.found.st_mode)
                subject = f"{entry.path}/" if directory else entry.path
                inside, made = 0, subject if directory and verb == "created" else ""
                escapes.append(Escape("writes", verb, subject))
        if inside:
            escapes[-1] = escapes[-1]._replace(detail=_count(inside))
        return sorted(escapes, key=lambda escape: escape.subject)

    def _verb(self, entry: _Entry) -> str:
        if entry.before is not None:
            return "changed"
        return "created" if entry.number in self._fresh else _compared(entry)

    def _scan(self) -> list[_Entry]:
        """All that is new or changed, less the ignored, each directory before what is in it."""
        changed: list[_Entry] = []
        left = [_MOST]
        for number, name, place in self._roots:
            try:
                found = os.stat(name, dir_fd=self._uppers)
            except FileNotFoundError:
                continue
            self._notice(number, place, found, "", changed)
            if self._may_hold_changes(number, place, found):
                root = os.open(name, _DIRECTORY, dir_fd=self._uppers)
                try:
                    self._look_below(number, root, place, changed, left)
                finally:
                    os.close(root)
        return changed

    def _may_hold_changes(self, number: str, path: str, found: os.stat_result) -> bool:
        """Not in a still directory, an empty one for example. When it was modified says nothing:
        overlayfs sets that back when it has copied a file up."""
        return self._still.get((number, path)) != found.st_ctime_ns

    def _look_below(
        self, number: str, directory: int, place: str, changed: list[_Entry], left: list[int]
    ) -> None:
        changed_last = os.fstat(directory).st_ctime_ns
        with os.scandir(directory) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
        base, still = place.rstrip("/"), time.time_ns() - changed_last > _TICK
        for each in found:
            name, path = each.name, f"{base}/{each.name}"
            still = still and (path in self._covered or each.is_symlink())
            if self._ignored_name(name) or self._ignored_path(path):
                continue
            left[0] -= 1
            if left[0] < 0:
                return
            status = each.stat(follow_symlinks=False)
            self._notice(number, path, status, f"/proc/self/fd/{directory}/{name}", changed)
            if not stat.S_ISDIR(status.st_mode) or not self._may_hold_changes(number, path, status):
                continue
            try:
                child = os.open(name, _DIRECTORY, dir_fd=directory)
            except PermissionError:
                continue
            try:
                self._look_below(number, child, path, changed, left)
            finally:
                os.close(child)
        if still:
            self._still[number, place] = changed_last

    def _notice(
        self, number: str, path: str, found: os.stat_result, here: str, changed: list[_Entry]
    ) -> None:
        """Add an entry that is new or changed. A directory's times change with what is in it."""
        key, mode = (number, path), found.st_mode
        signature = found.st_ino, mode, found.st_uid, found.st_gid
        if not stat.S_ISDIR(mode):
            signature = found.st_ino, mode, found.st_size, found.st_ctime_ns
        before = self._known.get(key)
        if before != signature:
            self._known[key] = signature
            opaque = before is None and bool(here) and stat.S_ISDIR(mode) and _opaque(here)
            changed.append(_Entry(number, path, found, opaque, before))


def _matcher(patterns: Iterable[str]) -> Callable[[str], object]:
    """Whether a string matches one of the patterns."""
    alternatives = [translate(pattern) for pattern in patterns]
    return re.compile("|".join(alternatives)).match if alternatives else lambda _: False


def _opaque(directory: str) -> bool:
    try:
        return is_opaque(directory)
    except PermissionError:
        return False


def _compared(entry: _Entry) -> str:
    """What happened to it; empty where the host has the very same."""
    here = entry.found
    try:
        host = os.lstat(entry.path)
    except OSError:
        return "" if _is_whiteout(here) else "created"
    if _is_whiteout(here):
        return "deleted"
    if stat.S_IFMT(here.st_mode) != stat.S_IFMT(host.st_mode):
        return "replaced"
    same_kind = (here.st_mode, here.st_uid, here.st_gid) == (host.st_mode, host.st_uid, host.st_gid)
    if stat.S_ISDIR(here.st_mode):
        return "replaced" if entry.opaque else "" if same_kind else "changed"
    same = same_kind and (here.st_size, here.st_mtime_ns) == (host.st_size, host.st_mtime_ns)
    return "" if same else "changed"


def _is_whiteout(found: os.stat_result) -> bool:
    """overlayfs.rst, "whiteouts and opaque directories": a character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _count(inside: int) -> str:
    return f"with {inside} {'entry' if inside == 1 else 'entries'}"


def ignoring(more: Iterable[str]) -> tuple[str, ...]:
    """The default patterns and more."""
    return (*IGNORED, *more)
