"""The patterns of Go's filepath.Match, which the sources of COPY may be."""

from __future__ import annotations

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.build.globbing import matches


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("*", ".hidden", True),
        ("*", "a/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        (r"[\-x]", "-", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("[x-a]", "b", False),
        ("a.c", "abc", False),
        ("ab[c]", "abc", True),
        ("*x", "xxx", True),
    ],
)
def test_gos_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    "pattern", ["[", "[]a]", "[-]", "[x-]", "[a-b-c]", "[^", "a[", r"[\\", "\\"]
)
def test_gos_malformed_patterns(pattern: str) -> None:
    with pytest.raises(BadRequest, match="syntax error in pattern"):
        matches(pattern, "a")
