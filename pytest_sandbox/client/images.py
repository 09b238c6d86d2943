"""Image archives on their way to the service, and the progress that it reports back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

Progress = Callable[[int, int | None], None]
"""Called with the bytes sent so far and the size of the whole, None when unknown."""

_BLOCK = 1 << 20


@contextmanager
def upload(
    source: str | os.PathLike[str] | BinaryIO, progress: Progress | None
) -> Iterator[Iterator[bytes]]:
    """The blocks of a file, given by path or open for reading. Raises OSError."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield _blocks(file, os.fstat(file.fileno()).st_size, progress)
    else:
        yield _blocks(source, None, progress)


def _blocks(file: BinaryIO, size: int | None, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    while block := _read(file):
        yield block
        sent += len(block)
        if progress is not None:
            progress(sent, size)


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(_BLOCK)
    except OSError as error:
        from pytest_sandbox.errors import BadRequest

        raise BadRequest(f"reading {getattr(file, 'name', 'the archive')}", str(error)) from error


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a stream of JSON objects, each as soon as it is complete."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, map(bytes.strip, lines))
    if rest.strip():
        yield rest


def progress_entries(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The progress objects of an answer that began well, each as soon as it is there; raises the
    error that ended it, if any."""
    for line in split_lines(pieces):
        entry = json.loads(line)
        if "errorDetail" in entry or "error" in entry:
            raise _reported_error(entry)
        yield entry


def _reported_error(entry: dict[str, Any]) -> Exception:
    from pytest_sandbox.errors import error_from_wire

    detail = entry.get("errorDetail") or {}
    message = detail.get("message") or entry.get("error")
    return error_from_wire({**entry, "message": message}, int(detail.get("code") or 500))


def imported_id(lines: list[dict[str, Any]]) -> str:
    """The id of the image that an import made: its last status."""
    return str(lines[-1]["status"])


def loaded_names(lines: list[dict[str, Any]]) -> list[str]:
    """The names, or ids of images without one, that a load reports."""
    report = "".join(line.get("stream", "") for line in lines)
    return re.findall(r"^Loaded image(?: ID)?: (.+)$", report, re.MULTILINE)
