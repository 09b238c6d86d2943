"""`--platform`: the image must be what the client asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sandboxd.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from sandboxd.images import Image

_PLATFORM: Final = re.compile(r"([a-z0-9_]+)(?:/([a-z0-9_]+)(?:/([a-z0-9_.]+))?)?", re.IGNORECASE)
_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


def check_platform(platform: str, image: Image) -> None:
    """Raises BadRequest for a malformed platform, NotFound for one that the image is not of."""
    if not platform:
        return
    match = _PLATFORM.fullmatch(platform)
    if not match:
        raise BadRequest(f'"{platform}" is an invalid platform specifier')
    system, machine = match[1].lower(), (match[2] or "").lower()
    if not match[2] and system != "linux":
        system, machine = "linux", system
    own_system = image.config.get("os") or "linux"
    own_machine = image.config.get("architecture") or ""
    other_machine = machine and own_machine and _ALIASES.get(machine, machine) != own_machine
    if system != own_system or other_machine:
        raise NotFound(
            f"image {image.id} was found but does not match the specified platform: "
            f"wanted {platform}, actual: {own_system}/{own_machine}"
        )
