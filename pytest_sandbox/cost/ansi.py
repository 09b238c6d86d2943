"""Text that tests have written, as HTML: escaped, and in the colours that it asks for."""

from __future__ import annotations

import re
from html import escape

_SEQUENCE = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]*)m"  # colours: ECMA-48, 8.3.117
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # any other control sequence
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def plain(text: str) -> str:
    """Without escape sequences and with other control characters made visible."""
    return _visible(_SEQUENCE.sub("", text))


def html(text: str) -> str:
    """For an element's content. Classes `c-red` … and `c-bold` say the colours."""
    pieces, classes, position = list[str](), frozenset[str](), 0
    for found in _SEQUENCE.finditer(text):
        pieces.append(_piece(text[position : found.start()], classes))
        position = found.end()
        if found["sgr"] is not None:
            classes = _after(classes, found["sgr"])
    pieces.append(_piece(text[position:], classes))
    return "".join(pieces)


def _piece(text: str, classes: frozenset[str]) -> str:
    shown = escape(_visible(text))
    return (
        f'<span class="{" ".join(sorted(classes))}">{shown}</span>' if classes and text else shown
    )


def _visible(text: str) -> str:
    """Line ends as HTML has them; U+2400 and following are pictures of the control characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(lambda c: chr(0x2400 + ord(c[0])) if ord(c[0]) < 32 else "\ufffd", lines)


def _after(classes: frozenset[str], parameters: str) -> frozenset[str]:
    """The 16 foreground colours and bold; what else there is changes nothing."""
    codes = iter(re.split("[;:]", parameters))
    for code in codes:
        number = int(code or 0)
        if number == 0:
            classes = frozenset()
        elif number in (1, 22):
            classes = classes - {"c-bold"} | ({"c-bold"} if number == 1 else set())
        elif number in (38, 48):
            # Of a palette: 5 and the colour's number; else 2 and three of them.
            for _ in range(3 if next(codes, "") == "2" else 1):
                next(codes, None)
        elif number == 39 or 30 <= number <= 37 or 90 <= number <= 97:
            classes = classes & {"c-bold"}
            if number != 39:
                classes |= {f"c-{_COLOURS[number % 10]}"}
    return classes
