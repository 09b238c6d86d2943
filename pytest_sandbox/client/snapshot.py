"""Recipes, the snapshots they fill, and the claim to fill one from this side of the socket."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_sandbox.client.options import (
    arguments,
    environment_list,
    image_here,
    is_host_image,
    shown_paths,
)
from pytest_sandbox.client.volume import Volume


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a recipe; `user`, `workdir` and `env` on top of the recipe's own."""

    args: Sequence[str]
    user: str = ""
    workdir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What fills a snapshot: an image, commands, files and environment.

    The steps run one after another in containers of `image` with an empty volume (or one that
    starts from the snapshot `base`) at the absolute path `target`. `files` are there before the
    first step: absolute path to content; `show` as in `Client.run`. What `target` holds at the end
    is sealed. The same recipe is built once per machine; a change in anything above, the image's
    content included, makes another snapshot.
    """

    image: str
    target: str
    steps: Sequence[Sequence[str] | Step] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    base: Snapshot | str | None = None
    show: Sequence[str | os.PathLike[str]] = ()

    def to_wire(self) -> dict[str, Any]:
        """The body of POST /sandbox/recipes."""
        wire = {
            "Image": image_here(self.image),
            "Target": self.target,
            "Steps": [_step(step) for step in self.steps],
            "Files": {path: _file(content) for path, content in self.files.items()},
            "Env": environment_list(self.env),
            "User": self.user,
            "Base": self.base.key if isinstance(self.base, Snapshot) else self.base,
        }
        if is_host_image(image_here(self.image)):
            wire["SandboxShow"] = shown_paths(self.show)
        return wire


def _step(step: Sequence[str] | Step) -> dict[str, Any]:
    step = step if isinstance(step, Step) else Step(step)
    return {
        "Cmd": arguments(step.args),
        "User": step.user,
        "WorkingDir": step.workdir,
        "Env": environment_list(step.env),
    }


def _file(content: bytes) -> dict[str, Any]:
    return {"Content": base64.b64encode(content).decode(), "Mode": 0o644}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A sealed directory tree that volumes start from, copy-on-write.

    `key` is the digest of what filled it, `digest` that of its content; `size` in bytes,
    `created` in RFC 3339, `spec` what its maker said about it.
    """

    key: str
    digest: str
    size: int
    files: int
    created: str
    spec: dict[str, Any]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Snapshot:
        spec = wire.get("Spec") or {}
        return cls(wire["Key"], wire["Digest"], wire["Size"], wire["Files"], wire["Created"], spec)


class Claim:
    """The right to fill the snapshot of one key while everybody else who wants it waits.

    `snapshot` is None when it is to be built: fill a volume, stop what uses it, then `seal` it.
    Leaving the `with` block without sealing lets the next one who waits build it.
    """

    def __init__(
        self,
        seal: Callable[[str, dict[str, Any]], Snapshot],
        key: str,
        snapshot: Snapshot | None,
    ) -> None:
        self._seal = seal
        self.key = key
        self.snapshot = snapshot

    def seal(self, volume: Volume, spec: Mapping[str, Any] | None = None) -> Snapshot:
        """Make the volume's content the snapshot; the volume is used up. Conflict if it is mounted
        or if the claim is not ours any more."""
        body = {"Volume": volume.name, "Spec": dict(spec or {})}
        self.snapshot = self._seal(self.key, body)
        return self.snapshot
