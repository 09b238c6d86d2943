"""Reading JSON of clients that disagree: null, an empty value and no key at all are the same.

The Docker CLI sends every field with its zero, docker-py only what was set, others `null`. A value
of another type is the client's mistake and a BadRequest that names the field; an unknown field is
nobody's business, as in Docker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxd.errors import BadRequest

_NOTHING: Mapping[str, Any] = {}


def _wrong_type(where: str, expected: str, value: object) -> BadRequest:
    return BadRequest("invalid JSON", f"{where} must be {expected}, not {_kind(value)}")


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")


class Fields:
    """One JSON object, read field by field; `where` is the name that error messages give it."""

    __slots__ = ("_raw", "_where")

    def __init__(self, raw: object, where: str = "") -> None:
        if raw is not None and not isinstance(raw, Mapping):
            raise _wrong_type(where or "the body", "an object", raw)
        self._raw: Mapping[str, Any] = raw or _NOTHING
        self._where = f"{where}." if where else ""

    def __bool__(self) -> bool:
        return bool(self._raw)

    def get(self, name: str) -> Any:
        """The value as it came, for fields of which only the presence counts."""
        return self._raw.get(name)

    def text(self, name: str, default: str = "") -> str:
        value = self._raw.get(name)
        if value is None or value == "":
            return default
        if not isinstance(value, str):
            raise _wrong_type(self._where + name, "a string", value)
        return self._sound(name, value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._raw.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong_type(self._where + name, "a boolean", value)
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number of 64 bits, sign included."""
        value = self._raw.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(self._where + name, "a whole number", value)
        if not -(1 << 63) <= value < 1 << 63:
            raise BadRequest("invalid JSON", f"{self._where}{name} does not fit into 64 bits")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._raw.get(name)
        if not value and (value is None or isinstance(value, list | tuple)):
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise _wrong_type(self._where + name, "a list of strings", value)
        return tuple(self._sound(name, item) for item in value)

    def command(self, name: str) -> tuple[str, ...]:
        """A list of arguments, or one string that stands for a list of one."""
        value = self._raw.get(name)
        if isinstance(value, str):
            text = self.text(name)
            return (text,) if text else ()
        return self.texts(name)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._raw.get(name)
        if value is None:
            return _NOTHING
        if not isinstance(value, Mapping):
            raise _wrong_type(self._where + name, "an object", value)
        for key in value:
            self._sound(name, key)
        return value

    def labels(self, name: str) -> dict[str, str]:
        """An object of strings; docker-py's list of names stands for names without a value."""
        value = self._raw.get(name)
        if not value and (value is None or isinstance(value, list | tuple)):
            return {}
        if isinstance(value, list | tuple):
            value = dict.fromkeys(value, "")
        if not isinstance(value, Mapping) or not all(
            isinstance(text, str) for pair in value.items() for text in pair
        ):
            raise _wrong_type(self._where + name, "an object of strings", value)
        return {self._sound(name, key): self._sound(name, text) for key, text in value.items()}

    def _sound(self, name: str, text: str) -> str:
        """What the kernel can take: no NUL, and no half a surrogate pair, which JSON can hold."""
        if "\0" in text:
            raise BadRequest("invalid JSON", f"{self._where}{name} holds a NUL character")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                why = f"{self._where}{name} is no text in UTF-8"
                raise BadRequest("invalid JSON", why) from None
        return text

    def object(self, name: str) -> Fields:
        return Fields(self._raw.get(name), self._where + name)

    def objects(self, name: str) -> tuple[Fields, ...]:
        value = self._raw.get(name)
        if not value and (value is None or isinstance(value, list | tuple)):
            return ()
        if not isinstance(value, list | tuple):
            raise _wrong_type(self._where + name, "a list of objects", value)
        return tuple(Fields(item, f"{self._where}{name}[{at}]") for at, item in enumerate(value))
