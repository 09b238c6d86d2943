"""Rows as aligned columns, and quantities in words: what Docker's own lists look like."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import click

_GAP = "   "
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def echo_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns that are as wide as their widest cell."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(_GAP.join(cells).rstrip())


def short_id(full: str) -> str:
    """The 12 digits by which people know a container, image or snapshot."""
    return full.removeprefix("sha256:")[:12]


def ago(moment: float) -> str:
    """`3 hours ago` for a time in seconds since 1970."""
    seconds = max(0, int(time.time() - moment))
    for span, name in _SPANS:
        if count := seconds // span:
            return f"{count} {name}{'s' * (count > 1)} ago"
    return "now"


def megabytes(size: int) -> str:
    """`4.2MB`: decimal units, as Docker prints them."""
    amount, units = float(size), ["TB", "GB", "MB", "kB", "B"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop()
    return f"{amount:.3g}{units[-1]}"
