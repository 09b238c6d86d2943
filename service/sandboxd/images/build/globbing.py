"""Patterns in the sources of COPY, as Go's filepath.Match has them.

`*` and `?` stand for anything but `/`, also for a leading dot; `[a-c]`, `[^a]` are classes; a
backslash takes the next character as it is. https://pkg.go.dev/path/filepath#Match
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from sandboxd.errors import BadRequest
from sandboxd.images.build.union import Parts, Union, names

_META: Final = frozenset("*?[\\")


def has_pattern(path: str) -> bool:
    return not _META.isdisjoint(path)


def matches(pattern: str, name: str) -> bool:
    """Whether one component matches. Raises BadRequest for a malformed pattern."""
    return _compiled(pattern).fullmatch(name) is not None


def matched(union: Union, pattern: str, base: Parts = ()) -> Iterator[Parts]:
    """The paths in a union that a pattern of several components means, sorted by name.

    Links in directories on the way are followed inside the union.
    """
    components = [part for part in pattern.split("/") if part not in ("", ".")]
    if not components:
        yield base
        return
    first, rest = components[0], "/".join(components[1:])
    with union.at(union.resolve("/".join(base))) as node:
        found = names(node) if node is not None and node.is_directory else []
    for name in found:
        if matches(first, name):
            if rest:
                yield from matched(union, rest, (*base, name))
            else:
                yield (*base, name)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    expression, rest = "", pattern
    while rest:
        character, rest = rest[0], rest[1:]
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "[":
            group, rest = _class(pattern, rest)
            expression += group
        elif character == "\\":
            if not rest:
                raise _malformed(pattern)
            expression += re.escape(rest[0])
            rest = rest[1:]
        else:
            expression += re.escape(character)
    return re.compile(expression, re.DOTALL)


def _class(pattern: str, rest: str) -> tuple[str, str]:
    negated = rest.startswith("^")
    rest = rest[negated:]
    ranges = ""
    while ranges == "" or not rest.startswith("]"):
        low, rest = _class_character(pattern, rest)
        high = low
        if rest.startswith("-"):
            high, rest = _class_character(pattern, rest[1:])
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
        else:
            # A range that holds nothing matches nothing, but it is no error.
            ranges += "" if ranges else "\0-\0"
        if not rest:
            raise _malformed(pattern)
    return f"[{'^' if negated else ''}{ranges}]", rest[1:]


def _class_character(pattern: str, rest: str) -> tuple[str, str]:
    if not rest or rest[0] in "-]":
        raise _malformed(pattern)
    if rest[0] == "\\":
        rest = rest[1:]
        if not rest:
            raise _malformed(pattern)
    return rest[0], rest[1:]


def _malformed(pattern: str) -> BadRequest:
    return BadRequest(f"pattern {pattern!r}", "syntax error in pattern")
