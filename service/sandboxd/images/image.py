"""What an image is, once it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

HOST: Final = "host"
"""The name that is reserved for the machine's own root."""


@dataclass(frozen=True, slots=True)
class Image:
    """`config` is the whole OCI image config; `layers` are diffIDs from the lowest up.

    `size` is in bytes, `created` RFC 3339, `tags` are short forms with a tag, `digests` are
    `NAME@DIGEST` as a registry would know the image. `stack` are the layers to mount, topmost
    first: those of `layers`, with small ones that repair them in between. With `on_host` they lie
    on the machine's own root.
    """

    id: str
    config: dict[str, Any]
    layers: tuple[str, ...]
    tags: tuple[str, ...]
    created: str
    size: int
    is_host: bool = False
    digests: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()
    on_host: bool = False
