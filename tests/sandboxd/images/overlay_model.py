"""What layers mean, in memory: archives applied one over another, as the OCI image specification
says (layer.md, "Applying Changesets"), with none of the service's code.

A tree is a dictionary from paths to entries. A hard link shares its entry with its target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Refused(Exception):
    """The archive asks for something that cannot be."""


@dataclass(eq=False)
class Entry:
    """`mode` None: a directory that no member named, whose mode a lower layer may know."""

    kind: str
    mode: int | None = None
    content: bytes | str = b""

    def shown(self) -> tuple[str, int | None, bytes | str]:
        mode = None if self.kind == "link" else 0o755 if self.mode is None else self.mode
        return self.kind, mode, self.content


Tree = dict[str, Entry]


@dataclass
class Layer:
    """One archive. `hidden` are whited-out names, `opaque` directories that hide what is below."""

    tree: Tree = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    """Devices, which are left out with whatever is a hard link to them."""

    @classmethod
    def of(cls, members: list[dict[str, Any]]) -> Layer:
        layer = cls()
        for member in members:
            layer._apply(**member)
        return layer

    def _apply(self, kind: str, path: str, mode: int = 0, content: Any = b"") -> None:
        if kind == "device":
            self.skipped.add(path)
            return
        if kind == "hard" and content in self.skipped:
            self.skipped.add(path)
            return
        self._parents(path)
        if kind == "whiteout":
            self.hidden.add(path)
        elif kind == "opaque":
            self.opaque.add(path.rpartition("/")[0])
        elif kind == "hard":
            self._link(path, content)
        elif kind == "dir" and path in self.tree and self.tree[path].kind == "dir":
            self.skipped.discard(path)
            self.tree[path] = Entry("dir", mode)
        else:
            self._replace(path, Entry(kind, mode, content))

    def _link(self, path: str, target: str) -> None:
        if path == target:
            return
        found = self.tree.get(target)
        if found is None or found.kind == "dir" or target.startswith(f"{path}/"):
            raise Refused(path)
        self._replace(path, found)

    def _replace(self, path: str, entry: Entry) -> None:
        below = f"{path}/"
        self.tree = {at: kept for at, kept in self.tree.items() if not at.startswith(below)}
        self.hidden = {at for at in self.hidden if not at.startswith(below)}
        self.opaque = {at for at in self.opaque if at != path and not at.startswith(below)}
        self.skipped.discard(path)
        self.tree[path] = entry

    def _parents(self, path: str) -> None:
        for at in _above(path):
            if at not in self.tree:
                self.tree[at] = Entry("dir")
            elif self.tree[at].kind != "dir":
                raise Refused(at)


def union(layers: list[Layer]) -> Tree:
    """What a container sees of the layers, the lowest first."""
    seen: Tree = {}
    for layer in layers:
        gone = layer.hidden | {at for at, entry in layer.tree.items() if entry.kind != "dir"}
        seen = {
            at: entry
            for at, entry in seen.items()
            if "" not in layer.opaque
            and at not in gone
            and not any(above in gone or above in layer.opaque for above in _above(at))
        }
        for at, entry in sorted(layer.tree.items()):
            below = seen.get(at)
            if entry.kind == "dir" and below is not None and below.kind == "dir":
                mode = below.mode if entry.mode is None else entry.mode
                seen[at] = Entry("dir", mode)
            elif entry.kind == "dir":
                seen = {each: kept for each, kept in seen.items() if each != at}
                seen[at] = entry
            else:
                seen[at] = entry
    return seen


def _above(path: str) -> list[str]:
    """The directories that `path` lies in, the root apart."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
