"""Variables: the table of https://docs.docker.com/reference/dockerfile/#environment-replacement."""

from __future__ import annotations

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.build.expansion import Expansion

VALUES = {"V": "value", "EMPTY": "", "PATHS": "/a/b/c.tar.gz", "STAR": "a*b", "D": "$V"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$V", "value"),
        ("${V}", "value"),
        ("a${V}b$V", "avaluebvalue"),
        ("$Vx", ""),
        ("$UNSET", ""),
        ("${UNSET}", ""),
        (r"\$V", "$V"),
        (r"\${V}", "${V}"),
        ("'$V'", "$V"),
        ('"$V"', "value"),
        ('"a b"c', "a bc"),
        ("${V:-x}", "value"),
        ("${UNSET:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${UNSET-x}", "x"),
        ("${UNSET:-$V}", "value"),
        ("${UNSET:-${V:+y}}", "y"),
        ("${V:+x}", "x"),
        ("${UNSET:+x}", ""),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${V:?wrong}", "value"),
        ("${PATHS#*/}", "a/b/c.tar.gz"),
        ("${PATHS##*/}", "c.tar.gz"),
        ("${PATHS%.*}", "/a/b/c.tar"),
        ("${PATHS%%.*}", "/a/b/c"),
        ("${PATHS#x}", "/a/b/c.tar.gz"),
        ("${PATHS/b/x}", "/a/x/c.tar.gz"),
        ("${PATHS//a/x}", "/x/b/c.txr.gz"),
        (r"${STAR#a\*}", "b"),
        ("${V#v?}", "lue"),
        ("$D", "$V"),
        ("$", "$"),
        ("a$", "a$"),
        ("é$V", "évalue"),
    ],
)
def test_a_word(text: str, expected: str) -> None:
    assert Expansion(VALUES, "\\").word(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${", "missing"),
        ("${V", "missing"),
        ("${}", "bad substitution"),
        ("${V^}", "unsupported modifier"),
        ("${UNSET:?not there}", "not there"),
        ("${EMPTY:?empty}", "empty"),
        ("${UNSET?}", "not allowed to be unset"),
        ("'open", "single-quote"),
        ('"open', "double-quote"),
    ],
)
def test_what_cannot_be_expanded(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Expansion(VALUES, "\\").word(text)


def test_a_backtick_as_escape() -> None:
    assert Expansion(VALUES, "`").word(r"`$V\$V") == r"$V\value"


def test_words_come_apart_at_spaces_outside_quotes() -> None:
    expansion = Expansion({"PORTS": "80 443"}, "\\")
    assert expansion.words("$PORTS 'a b'") == ["80", "443", "a b"]


def test_quotes_in_a_document_are_characters() -> None:
    assert Expansion(VALUES, "\\").document('it\'s "$V"\n') == 'it\'s "value"\n'


def test_depth_is_bounded() -> None:
    with pytest.raises(BadRequest):
        Expansion({}, "\\").word("${A:-" * 5000)
