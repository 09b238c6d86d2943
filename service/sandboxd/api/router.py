"""From method and path to a handler: a table, matched on the path as it was sent.

Docker's paths need three things that a usual router refuses: image names with unescaped slashes
(`/images/a/b:c/json`), a version prefix that is optional everywhere, and 404 rather than 405 for a
wrong method. Percent-escapes are decoded only after matching, so `%2F` never separates segments.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sandboxd.errors import BadRequest

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxd.api.call import Call

Handler = Callable[["Call"], Awaitable["web.StreamResponse"]]

_PLACEHOLDER = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table.

    In `path`, `{id}` stands for one segment (with or without the `/` that Docker puts before a
    container's name), `{name+}` for one or more segments.
    """

    method: str
    path: str
    handler: Handler

    @property
    def is_literal(self) -> bool:
        return "{" not in self.path

    def pattern(self) -> re.Pattern[str]:
        """The path as a regular expression with one named group for each placeholder."""
        parts, end = [], 0
        for found in _PLACEHOLDER.finditer(self.path):
            parts.append(re.escape(self.path[end : found.start()]))
            parts.append(f"(?P<{found[1]}>{'.+' if found[2] else '/?[^/]+'})")
            end = found.end()
        return re.compile("".join(parts) + re.escape(self.path[end:]), re.DOTALL)


class Router:
    """Finds the route of a request; of several that match, the first in the table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._literal: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]]
        self._patterns = defaultdict(list)
        for route in self.routes:
            if route.is_literal:
                self._literal[route.method, route.path] = route.handler
            else:
                family = route.method, _first_segment(route.path)
                self._patterns[family].append((route.pattern(), route.handler))

    def find(self, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """The handler and its decoded placeholders, or None. `path` is still percent-encoded.

        Raises BadRequest for escapes that are not UTF-8 and for NUL, which no name can hold.
        """
        if handler := self._literal.get((method, path)):
            return handler, {}
        for pattern, handler in self._patterns.get((method, _first_segment(path)), ()):
            if found := pattern.fullmatch(path):
                return handler, {name: _decoded(value) for name, value in found.groupdict().items()}
        return None


def _first_segment(path: str) -> str:
    return path[: path.find("/", 1)] if path.find("/", 1) > 0 else path


def _decoded(value: str) -> str:
    try:
        text = unquote(value, errors="strict") if "%" in value else value
    except UnicodeDecodeError as error:
        raise BadRequest("invalid path", f"{value} is not UTF-8") from error
    if "\0" in text:
        raise BadRequest("invalid path", "it holds a NUL character")
    return text
