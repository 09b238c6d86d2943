"""`sandbox.lock`: a test suite's images by digest, in TOML, the same bytes for the same images."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

NAME = "sandbox.lock"
COMMAND = "pytest --sandbox-lock"
_VERSION = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEADER = f"""\
# The images of this test suite, by digest. Written by `{COMMAND}`, which also renews it.
version = {_VERSION}
"""
_LOCAL = "# Images that no registry is known to have, by id: made, imported or loaded here."
_HUB = re.compile(r"^(?:(?:index\.)?docker\.io/)?(?:library/(?=[^/]+$))?")


class BadLock(ValueError):
    """The file is none of ours, or damaged; the message says where."""


class Lock(NamedTuple):
    """Names with their tags to digests: `images` by that of their manifest, `local` by image id."""

    images: Mapping[str, str] = {}
    local: Mapping[str, str] = {}

    def named(self, image: str) -> str | None:
        """What to ask the service for instead of `image`; None for an image that is not pinned.

        A name that says its digest itself, and an id, stand for themselves.
        """
        if says_itself(image):
            return image
        name = tagged(image)
        if digest := self.images.get(name):
            return f"{name}@{digest}"
        return self.local.get(name)


def says_itself(image: str) -> bool:
    return "@" in image or image.startswith("sha256:")


def tagged(image: str) -> str:
    """The short name with its tag, under which an image stands in the file."""
    short = _HUB.sub("", image)
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def render(lock: Lock) -> str:
    """The file's text: sorted, one image a line, so that a change is a change of its line."""
    parts = [_HEADER, "[images]\n", *_lines(lock.images)]
    if lock.local:
        parts += ["\n", f"{_LOCAL}\n", "[local]\n", *_lines(lock.local)]
    return "".join(parts[:1] + ["\n"] + parts[1:])


def write(path: Path, lock: Lock) -> None:
    """Replace the file, all of it or nothing. Raises OSError."""
    fd, staged = tempfile.mkstemp(prefix=f".{NAME}-", dir=path.parent)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(render(lock))
        os.chmod(staged, 0o644)
        os.replace(staged, path)
    except BaseException:
        os.unlink(staged)
        raise


def read(path: Path) -> Lock | None:
    """None where there is no file. Raises BadLock, OSError."""
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadLock(str(error)) from None
    if document.get("version") != _VERSION:
        raise BadLock(f"version {document.get('version')!r} is not {_VERSION}")
    if unknown := document.keys() - {"version", *Lock._fields}:
        raise BadLock(f"unknown key {min(unknown)!r}")
    return Lock(*(_table(document.get(name, {}), name) for name in Lock._fields))


def _table(table: object, name: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise BadLock(f"{name} is no table")
    for image, digest in table.items():
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BadLock(f"{name}: {image}: {digest!r} is no digest")
        if tagged(image) != image:
            raise BadLock(f"{name}: {image!r} is written {tagged(image)!r}")
    return table


def _lines(pins: Mapping[str, str]) -> list[str]:
    return [f"{json.dumps(image)} = {json.dumps(pins[image])}\n" for image in sorted(pins)]
