"""Filters of the volume list that need no look at containers: `name`, `driver`, `label`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from sandboxd.errors import BadRequest
from sandboxd.volumes.volume import Volume

Filters = Mapping[str, Iterable[str]]


def selected(volumes: Iterable[Volume], filters: Filters) -> list[Volume]:
    """The volumes that pass every filter: one matching value of each is enough, all for labels.

    Raises BadRequest for an unknown filter or a bad value.
    """
    tests = [_test(key, tuple(values)) for key, values in filters.items()]
    return [volume for volume in volumes if all(test(volume) for test in tests)]


def _test(key: str, values: tuple[str, ...]) -> Callable[[Volume], bool]:
    match key:
        case "name":
            patterns = [_pattern(value) for value in values]
            return lambda volume: any(each.search(volume.name) for each in patterns)
        case "driver":
            return lambda volume: volume.driver in values
        case "label":
            return lambda volume: all(_has_label(volume, value) for value in values)
    raise BadRequest(f"invalid filter '{key}'")


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise BadRequest(f"invalid filter 'name={value}'", str(error)) from error


def _has_label(volume: Volume, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)
