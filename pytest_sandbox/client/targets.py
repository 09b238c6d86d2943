"""Request targets: paths with names in them, and queries as the Engine API reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

Query = Mapping[str, Any]


def path_part(name: str, safe: str = "") -> str:
    """A name as part of a path. BadRequest for an empty one, which would change the path."""
    if not name:
        from pytest_sandbox.errors import BadRequest

        raise BadRequest("a name is missing", "it is empty")
    return quote(name, safe=safe)


def image_part(name: str) -> str:
    """An image's name as part of a path; the Engine API leaves `/`, `:` and `@` as they are."""
    return path_part(name, safe="/:@")


def with_query(path: str, query: Query | None) -> str:
    """The path, and the parameters that are not None. Truth is 1 and 0, lists repeat the name."""
    if not query:
        return path
    given = {key: _text(value) for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _text(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value
