"""The distribution API's errors, and which of them a SandboxError becomes.

The codes are those of the specification's table "Error Codes"; `UNKNOWN` is Docker's, for what has
none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from sandboxd.errors import SandboxError

API_VERSION: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
"""What Docker's older clients want to see in every answer."""


class Fault(Exception):
    """An answer that says no: status, code of the specification, why, and what would mend it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        mend: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message)
        self.status, self.code = status, code
        self.message, self.mend = message, mend
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: SandboxError, code: str = "UNKNOWN") -> Fault:
        """Under `code`, with the error's own status and words."""
        why = f"{error.what}: {error.why}" if error.why else error.what
        return cls(error.status, code, why, error.mend)

    def reply(self, *, with_body: bool = True) -> web.Response:
        """The answer; that to a HEAD request has no body."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.mend:
            error["detail"] = {"mend": self.mend}
        body = json.dumps({"errors": [error]}).encode() if with_body else b""
        headers = {**API_VERSION, "Content-Type": "application/json", **self.headers}
        return web.Response(status=self.status, body=body, headers=headers)


def name_invalid(name: str) -> Fault:
    return Fault(400, "NAME_INVALID", f"invalid repository name {name[:300]!r}")


def name_unknown(name: str) -> Fault:
    return Fault(404, "NAME_UNKNOWN", f"no repository {name}")


def digest_invalid(text: str) -> Fault:
    why = f"invalid digest {text[:100]!r}: sha256:<64 hexadecimal digits> expected"
    return Fault(400, "DIGEST_INVALID", why)


def blob_unknown(digest: str) -> Fault:
    return Fault(404, "BLOB_UNKNOWN", f"no blob {digest} in this repository")


def manifest_unknown(repository: str, which: str) -> Fault:
    return Fault(404, "MANIFEST_UNKNOWN", f"no manifest {repository}:{which}")


def manifest_invalid(why: str) -> Fault:
    return Fault(400, "MANIFEST_INVALID", f"manifest invalid: {why}")


def upload_unknown() -> Fault:
    return Fault(404, "BLOB_UPLOAD_UNKNOWN", "no such upload, or it has expired: start another one")


def upload_invalid(why: str) -> Fault:
    return Fault(400, "BLOB_UPLOAD_INVALID", f"upload invalid: {why}")


def out_of_order(size: int, headers: Mapping[str, str]) -> Fault:
    why = f"the next chunk has to begin at byte {size}"
    return Fault(416, "BLOB_UPLOAD_INVALID", why, headers=headers)


def unsupported(why: str, mend: str = "") -> Fault:
    return Fault(405, "UNSUPPORTED", why, mend)
