"""Every error that the client raises: the service's own tree, and what only this side can meet.

SandboxError                        what went wrong, why, and `mend`: what would fix it; HTTP status
├── BadRequest                      400
│   ├── CannotEnforce               400  a limit or option that this machine cannot give
│   ├── StartFailed                 400  the command was not executed; see its `exit_code`
│   └── BuildFailed                 400  a command of a Dockerfile failed; see its `exit_code`
├── Forbidden                       403
├── NotFound                        404
│   ├── NoSuchImage, NoSuchContainer, NoSuchExec, NoSuchVolume, NoSuchSnapshot
├── TimedOut                        408  a wait of the client or of the service ran out
├── Conflict                        409
├── HostLacks                       500
├── RegistryError                   502  a registry does not answer, or not as it should
├── Unavailable                     503
│   └── ServiceUnavailable          503  no service answers, or it went away half-way
└── NoSpace                         507

It is one tree for both sides of the socket: an answer of the service comes out here as the class
that was raised there. This module loads `sandboxd.errors`, so the plugin imports it only when
there is an error to raise or to catch.
"""

from __future__ import annotations

import json
from typing import Any

from sandboxd.errors import (
    BadRequest,
    BuildFailed,
    CannotEnforce,
    Conflict,
    Forbidden,
    HostLacks,
    NoSpace,
    NoSuchContainer,
    NoSuchExec,
    NoSuchImage,
    NoSuchSnapshot,
    NoSuchVolume,
    NotFound,
    RegistryError,
    SandboxError,
    StartFailed,
    TimedOut,
    Unavailable,
)

__all__ = [
    "BadRequest",
    "BuildFailed",
    "CannotEnforce",
    "Conflict",
    "Forbidden",
    "HostLacks",
    "NoSpace",
    "NoSuchContainer",
    "NoSuchExec",
    "NoSuchImage",
    "NoSuchSnapshot",
    "NoSuchVolume",
    "NotFound",
    "RegistryError",
    "SandboxError",
    "ServiceUnavailable",
    "StartFailed",
    "TimedOut",
    "Unavailable",
    "error_from_answer",
    "error_from_wire",
]


class ServiceUnavailable(Unavailable):
    """No service answers at the socket, it could not be started, or it died during a request."""


_BY_STATUS: dict[int, type[SandboxError]] = {
    kind.status: kind
    for kind in (BadRequest, Forbidden, NotFound, TimedOut, Conflict, Unavailable, NoSpace)
}


def error_from_answer(status: int, body: bytes) -> SandboxError:
    """The error that an HTTP answer of 400 or more stands for; `body` may be JSON or plain text."""
    try:
        wire = json.loads(body)
    except ValueError:
        wire = None
    if not isinstance(wire, dict):
        wire = {"message": body.decode(errors="replace").strip() or f"HTTP status {status}"}
    return error_from_wire(wire, status)


def error_from_wire(wire: dict[str, Any], status: int = 500) -> SandboxError:
    """The error that `SandboxError.to_wire` has written; Docker itself sends a `message` only."""
    parts = wire.get("sandbox")
    if not isinstance(parts, dict):
        parts = {"what": str(wire.get("message", f"HTTP status {status}"))}
    kind = _named(str(parts.get("type", ""))) or _BY_STATUS.get(status, SandboxError)
    error = kind(str(parts.get("what", "")), str(parts.get("why", "")), str(parts.get("mend", "")))
    if isinstance(error, StartFailed | BuildFailed):
        error.exit_code = int(wire.get("exit_code", error.exit_code))
    return error


def _named(name: str) -> type[SandboxError] | None:
    """The class of the tree with this name; None for a type that a newer service may know."""
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, SandboxError) else None
