"""Query strings as Docker's clients write them: three spellings of true, two of filters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from datetime import datetime
from urllib.parse import parse_qs

from sandboxd.errors import BadRequest

Filters = dict[str, list[str]]

_FALSE = frozenset({"", "0", "no", "false", "none"})
_MOST_FIELDS = 1000
_FRACTION_OF_SECOND = re.compile(r"\.(\d{1,6})\d*")


class Query:
    """The decoded query of one request."""

    def __init__(self, encoded: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not encoded:
            return
        try:
            self._values = parse_qs(
                encoded, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        except ValueError as error:
            raise BadRequest("invalid query", str(error)) from error
        if any("\0" in value for values in self._values.values() for value in values):
            raise BadRequest("invalid query", "it holds a NUL character")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """The first value, as Go's `FormValue` takes it."""
        return self._values.get(name, (default,))[0]

    def texts(self, name: str) -> list[str]:
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """False for an absent or empty value, `0`, `no`, `false` and `none` in any case."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def integer(self, name: str, default: int) -> int:
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError as error:
            raise BadRequest(f"invalid value of {name}: {value!r}", "it is no integer") from error

    def seconds(self, name: str) -> float | None:
        """A duration in seconds (may have a fraction); None when absent."""
        value = self.text(name)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError as error:
            raise BadRequest(f"invalid value of {name}: {value!r}", "it is no number") from error
        if not math.isfinite(number):
            raise BadRequest(f"invalid value of {name}: {value!r}", "it is not finite")
        return number

    def moment(self, name: str) -> float | None:
        """A point in time as Unix seconds: `SECONDS[.NANOSECONDS]` or RFC 3339; None when absent.

        A bare 0 means absent too: the CLI and docker-py send it for "from the beginning".
        """
        value = self.text(name)
        if "T" in value or value.count("-") > 1:
            return _rfc3339(name, value)
        return self.seconds(name) or None

    def filters(self, known: Collection[str] | None) -> Filters:
        """Filters in both of the shapes that are in use, `{"k": {"v": true}}` and `{"k": ["v"]}`.

        `known` are the keys that this route takes; None takes any (as /events does).
        """
        text = self.text("filters")
        if not text:
            return {}
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRequest("invalid filter", "it is not JSON") from error
        if decoded is None:
            return {}
        if not isinstance(decoded, dict):
            raise BadRequest("invalid filter", "it is not a JSON object")
        filters = {key: _filter_values(key, values) for key, values in decoded.items()}
        if known is not None:
            for key in filters:
                if key not in known:
                    raise BadRequest(f"invalid filter '{key}'")
        return filters


def _filter_values(key: str, values: object) -> list[str]:
    if isinstance(values, dict):
        return [value for value, wanted in values.items() if wanted]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    raise BadRequest(f"invalid filter '{key}'", "its values are neither a list nor a map")


def _rfc3339(name: str, value: str) -> float:
    # datetime keeps six digits of the fraction; Go's clients send nine.
    shortened = _FRACTION_OF_SECOND.sub(r".\1", value)
    try:
        moment = datetime.fromisoformat(shortened)
    except ValueError as error:
        raise BadRequest(f"invalid value of {name}: {value!r}", "it is no RFC 3339 time") from error
    return moment.timestamp()
