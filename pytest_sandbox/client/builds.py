"""Building images: what to ask the service, and what it tells meanwhile."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from pytest_sandbox.client.images import progress_entries
from pytest_sandbox.client.targets import with_query
from pytest_sandbox.client.transport import Request

BuildProgress = Callable[[dict[str, Any]], None]
"""Called with each object of Docker's build stream: `stream` is text to show."""

Context = str | os.PathLike[str] | BinaryIO
"""A directory, which the service reads where it lies, or a file with a tar archive."""

_BLOCK = 1 << 20
_FROM = re.compile(rb"^\s*FROM\s+(?:--platform=\S+\s+)?([^\s$]+)(?:\s|$)", re.I | re.M)


class BuildOptions(TypedDict, total=False):
    """How to build; what is left out is as with `docker build`."""

    tag: str | Sequence[str]
    dockerfile: str | os.PathLike[str]
    """A path in the context, or any other on this machine. In a tar archive, its name there."""
    target: str
    build_args: Mapping[str, str | None]
    secrets: Mapping[str, bytes | str | os.PathLike[str]]
    """By id, for `RUN --mount=type=secret`: the content as bytes, or the path of a file."""
    labels: Mapping[str, str]
    platform: str
    network: str
    no_cache: bool
    pull: bool
    progress: BuildProgress


def build_request(context: Context, options: BuildOptions) -> Request:
    """POST /sandbox/build for a directory, POST /build for an archive.

    Raises BadRequest for what cannot be, OSError for a file that cannot be read.
    """
    tags = options.get("tag", ())
    names = [tags] if isinstance(tags, str) else list(tags)
    if isinstance(context, str | os.PathLike):
        return _directory_request(Path(context), names, options)
    from pytest_sandbox.errors import BadRequest

    if options.get("secrets"):
        raise BadRequest("secrets", "they go with a directory as the context only")
    query = {
        "t": names,
        "dockerfile": str(options.get("dockerfile") or ""),
        "target": options.get("target"),
        "buildargs": json.dumps(dict(options.get("build_args") or {})),
        "labels": json.dumps(dict(options.get("labels") or {})),
        "platform": options.get("platform"),
        "networkmode": options.get("network"),
        "nocache": options.get("no_cache"),
        "pull": options.get("pull"),
    }
    headers = {"Content-Type": "application/x-tar"}
    return Request("POST", with_query("/build", query), _blocks(context), headers)


def followed(pieces: Iterable[bytes], progress: BuildProgress | None) -> str:
    """Follow a build to its end; the image's id. Raises the error that ended it."""
    id = ""
    for entry in progress_entries(pieces):
        id = (entry.get("aux") or {}).get("ID", id)
        if progress is not None:
            progress(entry)
    return id


def _directory_request(root: Path, names: list[str], options: BuildOptions) -> Request:
    root = Path(os.path.abspath(root))
    name, text = _dockerfile(root, options.get("dockerfile"))
    body = {
        "Context": str(root),
        "Dockerfile": name,
        "DockerfileText": None if text is None else text.decode(errors="surrogateescape"),
        "Tags": names,
        "Target": options.get("target"),
        "Platform": options.get("platform"),
        "BuildArgs": dict(options.get("build_args") or {}),
        "Labels": dict(options.get("labels") or {}),
        "Secrets": {id: _encoded(each) for id, each in (options.get("secrets") or {}).items()},
        "Network": options.get("network"),
        "NoCache": options.get("no_cache"),
        "Pull": options.get("pull"),
    }
    headers = {"Content-Type": "application/json", **_registry_headers(root, name, text)}
    return Request("POST", "/sandbox/build", json.dumps(body).encode(), headers)


def _dockerfile(root: Path, given: str | os.PathLike[str] | None) -> tuple[str, bytes | None]:
    """Its path in the context, or `Dockerfile` and the content of one that lies elsewhere."""
    if given is None:
        return "Dockerfile", None
    if (root / given).is_file() and not os.path.isabs(given):
        return str(given), None
    path = Path(os.path.abspath(given))
    if path.is_relative_to(root):
        return str(path.relative_to(root)), None
    return "Dockerfile", path.read_bytes()


def _encoded(secret: bytes | str | os.PathLike[str]) -> str:
    data = secret if isinstance(secret, bytes) else Path(secret).read_bytes()
    return b64encode(data).decode()


def _registry_headers(root: Path, name: str, text: bytes | None) -> dict[str, str]:
    """X-Registry-Config for the registries that FROM lines name without a variable."""
    from sandboxd.docker_config import credentials_for, domain_of
    from sandboxd.errors import SandboxError

    try:
        content = (root / name).read_bytes() if text is None else text
    except OSError:
        return {}
    found = {}
    for image in {match.decode(errors="replace") for match in _FROM.findall(content)}:
        try:
            domain = domain_of(image)
        except SandboxError:
            continue
        if domain not in found and (who := credentials_for(domain)) is not None:
            username, password, token = who
            found[domain] = {
                "username": username,
                "password": password,
                "identitytoken": token,
            }
    if not found:
        return {}
    encoded = urlsafe_b64encode(json.dumps(found).encode())
    return {"X-Registry-Config": encoded.decode()}


def _blocks(file: BinaryIO) -> Iterable[bytes]:
    while block := file.read(_BLOCK):
        yield block
