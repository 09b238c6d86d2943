"""Every error that the service can answer with, as one tree.

SandboxError                        500
├── BadRequest                      400  the request itself is wrong
│   ├── CannotEnforce               400  a limit or feature that this host or version cannot give
│   ├── StartFailed                 400  the command could not be executed (127, 126 or 125)
│   └── BuildFailed                 400  a command of a Dockerfile ended with another code than 0
├── Forbidden                       403  a read-only or foreign object
├── NotFound                        404
│   ├── NoSuchImage, NoSuchContainer, NoSuchExec, NoSuchVolume, NoSuchSnapshot
├── TimedOut                        408  what was waited for did not come in time
├── Conflict                        409  the object's state forbids it
├── HostLacks                       500  the machine misses a capability
├── RegistryError                   502  a registry does not answer, or not as it should
├── NoSpace                         507  disk, inodes or quota used up
└── Unavailable                     503  the service is stopping or its launcher died

Each carries *what* failed, *why*, and *mend*: the command or setting that would fix it. The API
sends `message` (what a Docker client prints) and the three parts beside it; the CLI and the plugin
render the same object.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Self


class SandboxError(Exception):
    """Base of the tree; `status` is the HTTP status that the API answers with."""

    status: ClassVar[int] = 500

    def __init__(self, what: str, why: str = "", mend: str = "") -> None:
        super().__init__(what, why, mend)
        self.what, self.why, self.mend = what, why, mend

    @property
    def message(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text} (to mend it: {self.mend})" if self.mend else text

    def __str__(self) -> str:
        return self.message

    def to_wire(self) -> dict[str, object]:
        """The JSON body: Docker's `message`, and the parts for clients that know them."""
        parts = {"type": type(self).__name__, "what": self.what, "why": self.why, "mend": self.mend}
        return {"message": self.message, "sandbox": parts}

    @classmethod
    def from_os(cls, what: str, error: OSError) -> SandboxError:
        """Wrap an operating-system error; a full disk becomes NoSpace whatever the class."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace(
                what, str(error), "sandboxctl volume prune, or free space under SANDBOX_ROOT"
            )
        return cls(what, str(error))


class BadRequest(SandboxError):
    status = 400


class CannotEnforce(BadRequest):
    """A limit or option that would have to be dropped in silence."""


class StartFailed(BadRequest):
    """The command was not executed; `exit_code` is what a shell would report (127, 126, 125)."""

    def __init__(self, what: str, why: str = "", mend: str = "", *, exit_code: int = 125) -> None:
        super().__init__(what, why, mend)
        self.exit_code = exit_code

    def to_wire(self) -> dict[str, object]:
        wire = super().to_wire()
        return {**wire, "exit_code": self.exit_code}


class BuildFailed(BadRequest):
    """A command of a Dockerfile failed with `exit_code`."""

    def __init__(self, what: str, why: str = "", mend: str = "", *, exit_code: int = 1) -> None:
        super().__init__(what, why, mend)
        self.exit_code = exit_code

    def to_wire(self) -> dict[str, object]:
        wire = super().to_wire()
        return {**wire, "exit_code": self.exit_code}


class Forbidden(SandboxError):
    status = 403


class NotFound(SandboxError):
    status = 404

    _message: ClassVar[str] = "No such object: {}"

    @classmethod
    def named(cls, name: str, mend: str = "") -> Self:
        """The error for a missing object, in the words that Docker clients match on."""
        return cls(cls._message.format(name), mend=mend)


class NoSuchImage(NotFound):
    _message = "No such image: {}"


class NoSuchContainer(NotFound):
    _message = "No such container: {}"


class NoSuchExec(NotFound):
    _message = "No such exec instance: {}"


class NoSuchVolume(NotFound):
    _message = "get {}: no such volume"


class NoSuchSnapshot(NotFound):
    _message = "No such snapshot: {}"


class TimedOut(SandboxError):
    status = 408


class Conflict(SandboxError):
    status = 409


class HostLacks(SandboxError):
    status = 500


class RegistryError(SandboxError):
    status = 502


class Unavailable(SandboxError):
    status = 503


class NoSpace(SandboxError):
    status = 507
