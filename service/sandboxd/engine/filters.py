"""Filters of list routes: a name and the values of which one must match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from sandboxd.errors import BadRequest

Filters = Mapping[str, Iterable[str]]


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether every `name` or `name=value` of `wanted` is among `labels`."""
    for entry in wanted:
        name, equals, value = entry.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def matches_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """The filters `label` and `label!` of the prune routes."""
    refused = tuple(filters.get("label!", ()))
    if refused and has_labels(labels, refused):
        return False
    return has_labels(labels, filters.get("label", ()))


def pattern(key: str, text: str) -> re.Pattern[str]:
    """The regular expression of a filter on names. Raises BadRequest for a broken one."""
    try:
        return re.compile(text)
    except re.error as error:
        raise BadRequest(f"invalid filter '{key}={text}'", str(error)) from None


def truth(key: str, text: str) -> bool:
    """A filter that is true or false. Raises BadRequest for anything else."""
    if text.lower() in ("1", "true", "t"):
        return True
    if text.lower() in ("0", "false", "f"):
        return False
    raise BadRequest(f"invalid filter '{key}={text}'")


def passes(filters: Filters, key: str, test: Callable[[str], bool]) -> bool:
    """True without such a filter, else whether one of its values passes `test`."""
    values = tuple(filters.get(key, ()))
    return not values or any(test(value) for value in values)
