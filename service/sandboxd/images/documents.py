"""JSON documents of images, read with suspicion: bounded, and of the shape that is needed."""

from __future__ import annotations

import json
from typing import Any, Final

from sandboxd.errors import BadRequest

SIZE_MAX: Final = 4 << 20
"""Bytes of a manifest, an index or a config."""


def parsed(data: bytes, what: str) -> Any:
    """Raises BadRequest for what is too big, too deep, or no JSON."""
    if len(data) > SIZE_MAX:
        raise BadRequest(what, f"longer than {SIZE_MAX} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(what, f"no JSON document: {error}"[:200]) from error


def parsed_object(data: bytes, what: str) -> dict[str, Any]:
    document = parsed(data, what)
    if not isinstance(document, dict):
        raise BadRequest(what, "not a JSON object")
    return document


def strings(document: dict[str, Any], key: str, what: str) -> list[str]:
    """A list of strings; absent and null are the empty list."""
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequest(what, f"{key} is not a list of strings")
    return value


def objects(document: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    """A list of objects; absent and null are the empty list."""
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRequest(what, f"{key} is not a list of objects")
    return value


def diff_ids(config: dict[str, Any]) -> list[str]:
    """The layers that an image's config names, from the lowest up."""
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise BadRequest("image config", "its rootfs is not of type layers")
    return strings(rootfs, "diff_ids", "image config")
