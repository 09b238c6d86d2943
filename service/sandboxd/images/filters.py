"""Filters of the image list: `reference`, `dangling`, `label`, `before`, `since`, `until`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.images.image import Image

Filters = Mapping[str, Iterable[str]]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smh])+")


def selected(
    images: Iterable[Image], filters: Filters, find: Callable[[str], Image]
) -> list[Image]:
    """The images that pass every filter; one matching value of each is enough, all for labels.

    Raises BadRequest for an unknown filter or a bad value, NoSuchImage for `before` and `since`.
    """
    tests = [_test(key, tuple(values), find) for key, values in filters.items()]
    return [image for image in images if all(test(image) for test in tests)]


def _test(
    key: str, values: tuple[str, ...], find: Callable[[str], Image]
) -> Callable[[Image], bool]:
    match key:
        case "reference":
            return lambda image: any(_is_called(image, value) for value in values)
        case "dangling":
            wanted = {_truth(value) for value in values}
            return lambda image: (not image.tags) in wanted
        case "label":
            return lambda image: all(_has_label(image, value) for value in values)
        case "label!":
            return lambda image: not any(_has_label(image, value) for value in values)
        case "before":
            moments = [find(value).created for value in values]
            return lambda image: any(image.created < moment for moment in moments)
        case "since":
            moments = [find(value).created for value in values]
            return lambda image: any(image.created > moment for moment in moments)
        case "until":
            limits = [_moment(value) for value in values]
            return lambda image: all(_created(image) < limit for limit in limits)
    raise BadRequest(f"invalid filter '{key}'")


def _is_called(image: Image, pattern: str) -> bool:
    """Docker matches with path.Match: a star does not cross a slash."""
    for tag in image.tags:
        names = (tag, tag.rpartition(":")[0])
        if any(
            name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
            for name in names
        ):
            return True
    return False


def _has_label(image: Image, wanted: str) -> bool:
    labels = (image.config.get("config") or {}).get("Labels") or {}
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _truth(value: str) -> bool:
    if value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise BadRequest(f"invalid filter 'dangling={value}'")


def _moment(value: str) -> datetime:
    """Unix seconds, RFC 3339, or a Go duration before now such as `1h30m`."""
    try:
        if _DURATION.fullmatch(value):
            parts = re.findall(r"([0-9.]+)([smh])", value)
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
            return datetime.now(UTC) - timedelta(seconds=seconds)
        if value.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(value), UTC)
        moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"invalid filter 'until={value}'") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _created(image: Image) -> datetime:
    try:
        return datetime.fromisoformat(image.created[:19] + "+00:00")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
