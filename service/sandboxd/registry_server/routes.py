"""From a request's path to what it is about. Names are checked here, before anything uses them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from sandboxd.registry_server.faults import Fault, digest_invalid, name_invalid
from sandboxd.store.digests import is_digest

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_UPLOAD: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NAME_MAX: Final = 255
_PATH_MAX: Final = 1024

_ROUTES: Final = (
    ("base", re.compile(r"/v2/?")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("tags", re.compile(r"/v2/(?P<name>.+)/tags/list")),
    ("upload", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<which>[^/]+)")),
    ("uploads", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?")),
    ("blob", re.compile(r"/v2/(?P<name>.+)/blobs/(?P<which>[^/]+)")),
    ("manifest", re.compile(r"/v2/(?P<name>.+)/manifests/(?P<which>[^/]+)")),
    ("referrers", re.compile(r"/v2/(?P<name>.+)/referrers/(?P<which>[^/]+)")),
)


class Target(NamedTuple):
    """`kind` is a key of the server's table; `name` a repository; `which` a tag, digest or id."""

    kind: str
    name: str = ""
    which: str = ""


def parsed(raw_path: str) -> Target:
    """The target of a path as it was sent. Raises Fault: 404, or 400 for a malformed name."""
    path = unquote(raw_path, errors="replace")
    if len(path) > _PATH_MAX:
        raise Fault(414, "NAME_INVALID", f"a path longer than {_PATH_MAX} characters")
    for kind, pattern in _ROUTES:
        if found := pattern.fullmatch(path):
            return _checked(Target(kind, **found.groupdict()))
    raise Fault(404, "UNSUPPORTED", "there is nothing at this path: the API is below /v2/")


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """Raises Fault for what is no repository name: distribution-spec, "Pulling manifests"."""
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise name_invalid(name)
    return name


def checked_digest(text: str) -> str:
    """Raises Fault for what is no digest, or one of another algorithm."""
    if not is_digest(text):
        raise digest_invalid(text)
    return text


def _checked(target: Target) -> Target:
    if target.name:
        checked_name(target.name)
    if target.kind in ("blob", "referrers"):
        checked_digest(target.which)
    if target.kind == "manifest" and not is_tag(target.which):
        checked_digest(target.which)
    if target.kind == "upload" and not _UPLOAD.fullmatch(target.which):
        raise Fault(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
    return target
