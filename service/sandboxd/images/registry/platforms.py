"""Which of an index's images this machine, or whoever asks, can use.

The words are Go's: https://github.com/opencontainers/image-spec/blob/main/image-index.md. Order and
fall-backs are those of https://github.com/containerd/platforms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from sandboxd.errors import BadRequest
from sandboxd.images.platform import architecture

_SPECIFIER: Final = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+){0,2}", re.IGNORECASE)
_ALIASES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_SYSTEMS: Final = frozenset(("linux", "windows", "darwin", "freebsd"))
_DEFAULT_VARIANT: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}


class Platform(NamedTuple):
    """Operating system, architecture and variant; the variant is empty where it is the default."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`OS/ARCH[/VARIANT]`, or one of the first two alone. Raises BadRequest."""
        if not _SPECIFIER.fullmatch(text):
            raise BadRequest(f'"{text[:80]}" is an invalid platform specifier')
        parts = text.lower().split("/")
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
                return cls._normal(parts[0], architecture(), "")
            return cls._normal("linux", parts[0], "")
        return cls._normal(parts[0], parts[1], parts[2] if len(parts) == 3 else "")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        names = ("os", "architecture", "variant")
        return cls._normal(*(str(document.get(name) or "").lower() for name in names))

    @classmethod
    def of_machine(cls) -> Self:
        return cls._normal("linux", architecture(), "")

    @classmethod
    def _normal(cls, system: str, machine: str, variant: str) -> Self:
        machine, implied = _ALIASES.get(machine, (machine, ""))
        variant = variant or implied
        return cls(system, machine, "" if variant == _DEFAULT_VARIANT.get(machine) else variant)

    def __str__(self) -> str:
        return "/".join(part for part in self if part)

    def to_document(self) -> dict[str, str]:
        document = {"architecture": self.architecture, "os": self.os}
        return {**document, "variant": self.variant} if self.variant else document

    def rank(self, offered: Platform | None) -> int | None:
        """How well `offered` suits, 0 best; None where it cannot be used.

        A newer processor runs what was made for an older one of its kind: arm/v7 takes v6 and v5.
        What says nothing comes last.
        """
        if offered is None or offered == ("", "", ""):
            return 100
        if (offered.os, offered.architecture) != (self.os, self.architecture):
            return None
        wanted, found = _level(self), _level(offered)
        return wanted - found if found <= wanted else None


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """The index of the best suited one, the first of equals; None where none can be used."""
    ranks = [
        (rank, at) for at, each in enumerate(offered) if (rank := wanted.rank(each)) is not None
    ]
    return min(ranks)[1] if ranks else None


def _level(platform: Platform) -> int:
    variant = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "v0")
    digits = variant.removeprefix("v").partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 99
