"""`ADD URL`: a file from the network, with what the server says about its age."""

from __future__ import annotations

import hashlib
import http.client
import os
import posixpath
import re
import urllib.error
import urllib.parse
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.store.digests import hex_of

_REMOTE: Final = re.compile(r"https?://", re.IGNORECASE)
_GIT: Final = re.compile(r"(git@|git://|https?://[^?#]+\.git([?#]|$))", re.IGNORECASE)
_SECONDS: Final = 60.0
_BLOCK: Final = 1 << 20
_SIZE_MAX: Final = 16 << 30


def is_remote(source: str) -> bool:
    return _REMOTE.match(source) is not None or _GIT.match(source) is not None


def download(url: str, directory: Path, checksum: str, *, needs_name: bool) -> Path:
    """Fetch a URL into the empty `directory`; the file's path.

    With `checksum`, `sha256:HEX`, the content must have it. Raises BadRequest, OSError.
    """
    if _GIT.match(url):
        raise CannotEnforce(f"ADD {url}", "git repositories cannot be added", "git clone, COPY")
    if checksum:
        hex_of(checksum)
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        if needs_name:
            raise BadRequest(f"ADD {url}", "cannot determine filename from url")
        name = "download"
    path = directory / name
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # http and https only
            _receive(url, answer, path, checksum)
            modified = answer.headers.get("Last-Modified", "")
    except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        raise BadRequest(f"ADD {url}", str(error)) from error
    os.chmod(path, 0o600)
    moment = _moment(modified)
    os.utime(path, (moment, moment))
    return path


def _receive(url: str, answer: http.client.HTTPResponse, path: Path, checksum: str) -> None:
    total, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        while block := answer.read(_BLOCK):
            total.update(block)
            size += len(block)
            if size > _SIZE_MAX:
                raise BadRequest(f"ADD {url}", f"longer than {_SIZE_MAX} bytes")
            file.write(block)
    promised = answer.headers.get("Content-Length", "")
    if promised.isdigit() and int(promised) != size:
        raise BadRequest(f"ADD {url}", f"it broke off after {size} of {promised} bytes")
    if checksum and checksum != f"sha256:{total.hexdigest()}":
        why = f"its digest is sha256:{total.hexdigest()}, {checksum} was asked for"
        raise BadRequest(f"ADD {url}", why)


def _moment(modified: str) -> float:
    try:
        return parsedate_to_datetime(modified).timestamp()
    except (TypeError, ValueError):
        return 0.0
