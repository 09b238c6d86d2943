"""Shapes of JSON bodies: what Go's decoder would take, as functions from value to value.

A shape is a function `(value, where) -> value`. It returns the value with keys in their canonical
spelling (Go matches them without regard to case), without unknown keys and without nulls (Go's
clients send null for "not set"), and raises BadRequest for a wrong type. NUL is refused in every
text: no argument, path or environment variable can carry it through execve(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sandboxd.errors import BadRequest

Shape = Callable[[object, str], object]

_INT64_MAX = 2**63 - 1


def text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, where, "string")
    if "\0" in value:
        raise BadRequest(f"invalid value of {where}", "it holds a NUL character")
    return value


def flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, where, "bool")
    return value


def integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(value, where, "int64")
    if not -_INT64_MAX <= value <= _INT64_MAX:
        raise BadRequest(f"invalid value of {where}", "it does not fit 64 bits")
    return value


def number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong_type(value, where, "number")
    if not math.isfinite(value):
        raise BadRequest(f"invalid value of {where}", "it is not finite")
    return value


def anything(value: object, where: str) -> object:
    return value


def argv(value: object, where: str) -> list[str]:
    """A command: a list of texts, or one text, which stands for a list of one."""
    if isinstance(value, str):
        return [text(value, where)]
    return _texts(value, where)


def items(shape: Shape) -> Shape:
    """A list, each element of one shape."""

    def read(value: object, where: str) -> list[object]:
        if not isinstance(value, list):
            raise _wrong_type(value, where, "list")
        return [shape(item, where) for item in value]

    return read


def mapping(shape: Shape) -> Shape:
    """An object whose keys are data (labels, ports). A null value stays None."""

    def read(value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise _wrong_type(value, where, "object")
        return {
            text(key, where): None if item is None else shape(item, where)
            for key, item in value.items()
        }

    return read


def record(**fields: Shape) -> Shape:
    """An object with known fields, each of its own shape."""
    canonical = {name.lower(): (name, shape) for name, shape in fields.items()}

    def read(value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise _wrong_type(value, where, "object")
        out: dict[str, object] = {}
        for key, item in value.items():
            found = canonical.get(key.lower())
            if found is not None and item is not None:
                name, shape = found
                out[name] = shape(item, f"{where}.{name}" if where else name)
        return out

    return read


def labels(value: object, where: str) -> dict[str, str]:
    """Texts by name; null stands for an empty text, as in Go."""
    read = _label_values(value, where)
    return {key: item or "" for key, item in read.items()}


def _label_values(value: object, where: str) -> dict[str, str]:
    return mapping(text)(value, where)  # type: ignore[return-value]


def _texts(value: object, where: str) -> list[str]:
    return items(text)(value, where)  # type: ignore[return-value]


def _wrong_type(value: object, where: str, wanted: str) -> BadRequest:
    got = {str: "string", bool: "bool", int: "number", float: "number", list: "array"}
    name = got.get(type(value), "object" if isinstance(value, dict) else "null")
    target = f"field {where}" if where else "the request body"
    return BadRequest(f"invalid JSON: cannot unmarshal {name} into {target} of type {wanted}")
