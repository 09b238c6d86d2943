"""The marker `sandbox(…)`: settings for one test's containers, and for the test itself.

The marker is the nearest to the test, so it wins over factories and options. What it says about
containers (`container_image`, `env`, `timeout`, `log_lines`) reaches those that are made for what
it marks: on a function those of function scope, on a class or module (`pytestmark`) also the wider
ones. `image` is where the test itself runs; `postgres` lists the versions that it runs with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

import pytest

_Value = TypeVar("_Value")

NAME = "sandbox"
IMAGE_VARIABLE: Final = "SANDBOX_TEST_IMAGE"
"""Set for tests that run in a container of an image: its name."""
_VERSION: Final = re.compile(r"\d+(\.\d+)*", re.ASCII)


class Marked(NamedTuple):
    """What the markers on a node ask for; None where they say nothing."""

    env: Mapping[str, str] = MappingProxyType({})
    image: str | None = None
    container_image: str | None = None
    postgres: tuple[str, ...] = ()
    timeout: float | None = None
    log_lines: int | None = None


def marked(node: pytest.Item | pytest.Collector) -> Marked:
    """The marker's settings for `node`: the closest wins, environments add up.

    Raises ValueError, naming the argument, for a marker with unusable arguments.
    """
    found = Marked()
    for mark in node.iter_markers(NAME):
        outer = _checked(mark)
        found = Marked(
            env={**outer.env, **found.env},
            image=_closest(found.image, outer.image),
            container_image=_closest(found.container_image, outer.container_image),
            postgres=found.postgres or outer.postgres,
            timeout=_closest(found.timeout, outer.timeout),
            log_lines=_closest(found.log_lines, outer.log_lines),
        )
    return found


def runs_in_image(item: pytest.Item) -> bool:
    """Whether the marker sends the test into a container of an image; false where it is in one."""
    if IMAGE_VARIABLE in os.environ or item.get_closest_marker(NAME) is None:
        return False
    return marked(item).image is not None


def _closest(inner: _Value | None, outer: _Value | None) -> _Value | None:
    return outer if inner is None else inner


def _checked(mark: pytest.Mark) -> Marked:
    if mark.args:
        raise ValueError(f"it takes keyword arguments only, not {mark.args!r}")
    known = Marked._fields
    if unknown := [name for name in mark.kwargs if name not in known]:
        raise ValueError(f"no argument {unknown[0]!r}; there are {', '.join(known)}")
    env = mark.kwargs.get("env") or {}
    _check("env", env, _is_environment(env), "a mapping of strings to strings")
    images = {name: mark.kwargs.get(name) for name in ("image", "container_image")}
    for name, image in images.items():
        _check(name, image, image is None or _is_text(image), "the name of an image")
    postgres = _versions("postgres", mark.kwargs.get("postgres"))
    timeout = mark.kwargs.get("timeout")
    _check("timeout", timeout, timeout is None or _is_seconds(timeout), "a number above 0")
    lines = mark.kwargs.get("log_lines")
    _check("log_lines", lines, lines is None or _is_count(lines), "a whole number from 0 up")
    return Marked(env=env, **images, postgres=postgres, timeout=timeout, log_lines=lines)


def _versions(name: str, value: Any) -> tuple[str, ...]:
    """`"17"` or `["14", "17"]`; each is digits and dots."""
    if value is None:
        return ()
    versions = (value,) if isinstance(value, str) else value
    good = (
        isinstance(versions, list | tuple)
        and bool(versions)
        and all(isinstance(each, str) and _VERSION.fullmatch(each) for each in versions)
        and len(set(versions)) == len(versions)
    )
    _check(name, value, good, 'a version, such as "17", or a list of different ones')
    return tuple(versions)


def _check(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(f"{name}={value!r} is not {wanted}")


def _is_environment(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        _is_text(name) and "=" not in name and isinstance(text, str) for name, text in value.items()
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def refuse_bad_marker(item: pytest.Item) -> None:
    """Fail the collection of `item`, with its file and line, when its marker cannot be used."""
    try:
        marked(item)
    except ValueError as error:
        path, line, _ = item.reportinfo()
        raise pytest.Collector.CollectError(
            f"{path}:{(line or 0) + 1}: marker {NAME}: {error}"
        ) from None
