"""Who may do what: nobody but readers, everybody, or those who show a token or a password.

A token is accepted as `Authorization: Bearer TOKEN` and as the password of any user name, which is
what `docker login` asks for. Comparisons take the same time wherever they differ.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.registry_server.faults import Fault
from sandboxd.registry_server.passwords import Password

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="pytest-sandbox registry", charset="UTF-8"'}
_TOKEN_MIN: Final = 16
_FILE_MAX: Final = 1 << 20
_RIGHTS: Final = {"": True, "write": True, "read": False}


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class Access:
    """`tokens` are fingerprints with whether they may write, `users` name to password."""

    read_only: bool = False
    tokens: tuple[tuple[bytes, bool], ...] = ()
    users: Mapping[str, Password] = field(default_factory=dict)
    _salt: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    _verified: dict[str, bytes] = field(default_factory=dict, repr=False)
    """User to a keyed digest of the password that was found right: bcrypt is slow on purpose."""

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the socket is let in."""
        return not (self.tokens or self.users)

    def check(self, authorization: str, *, writes: bool) -> None:
        """Raises Fault 401 for a stranger, 403 for one who may not write, 405 where none may.

        May take a while (password hashes): call it in a thread.
        """
        if not self.is_open and not self._may(authorization, writes):
            raise Fault(403, "DENIED", "this token may only read")
        if writes and self.read_only:
            why = "this registry is read-only"
            raise Fault(405, "UNSUPPORTED", why, "serve it without --read-only")

    def _may(self, authorization: str, writes: bool) -> bool:
        """Whether the bearer may do it. Raises Fault 401 for a stranger."""
        scheme, _, value = authorization.strip().partition(" ")
        user, secret = None, value.strip()
        if scheme.lower() == "basic":
            user, secret = _decoded(secret)
        elif scheme.lower() != "bearer":
            raise _unauthorized("authentication required")
        right = self._token_right(secret)
        if right is None and user is not None and self._knows(user, secret):
            right = True
        if right is None:
            raise _unauthorized("wrong user, password or token")
        return right or not writes

    def _token_right(self, secret: str) -> bool | None:
        """Compares with every token, whichever is right."""
        shown, right = _fingerprint(secret), None
        for known, may_write in self.tokens:
            if hmac.compare_digest(known, shown):
                right = may_write
        return right

    def _knows(self, user: str, secret: str) -> bool:
        password = self.users.get(user)
        if password is None:
            # As much work as for a user that there is, so that names cannot be told apart.
            for other in self.users.values():
                other.matches(secret)
                break
            return False
        keyed = hmac.digest(self._salt, secret.encode("utf-8", "surrogateescape"), "sha256")
        if hmac.compare_digest(self._verified.get(user, b""), keyed):
            return True
        if password.matches(secret):
            self._verified[user] = keyed
            return True
        return False

    @classmethod
    def load(cls, *, read_only: bool, token_file: Path | None, htpasswd: Path | None) -> Self:
        """Raises BadRequest that names file and line for what cannot be used."""
        return cls(
            read_only,
            () if token_file is None else tuple(_tokens(token_file)),
            {} if htpasswd is None else dict(_users(htpasswd)),
        )


def _decoded(value: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise _unauthorized("the Authorization header is not base64") from None
    user, _, secret = text.partition(":")
    return user, secret


def _unauthorized(why: str) -> Fault:
    return Fault(401, "UNAUTHORIZED", why, "docker login, with a token as the password", _CHALLENGE)


def _tokens(path: Path) -> list[tuple[bytes, bool]]:
    """Lines `TOKEN` or `TOKEN read`; `#` begins a comment."""
    found = []
    for number, line in _lines(path):
        token, _, right = line.partition(" ")
        if right.strip() not in _RIGHTS:
            why = f"{right.strip()!r} is neither read nor write"
            raise BadRequest(f"{path}, line {number}", why, "one line for each: TOKEN [read|write]")
        if len(token) < _TOKEN_MIN:
            why = f"a token of less than {_TOKEN_MIN} characters can be guessed"
            mend = "openssl rand -hex 24 makes one"
            raise BadRequest(f"{path}, line {number}", why, mend)
        found.append((_fingerprint(token), _RIGHTS[right.strip()]))
    return found


def _users(path: Path) -> list[tuple[str, Password]]:
    """Lines `USER:HASH`, as htpasswd(1) writes them."""
    found = []
    for number, line in _lines(path):
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise BadRequest(f"{path}, line {number}", "no USER:HASH", "htpasswd -B FILE USER")
        try:
            found.append((user, Password.parse(hashed)))
        except BadRequest as error:
            raise BadRequest(f"{path}, line {number}", error.why, error.mend) from None
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_MAX).decode()
    except OSError as error:
        raise SandboxError.from_os(f"read {path}", error) from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path}", f"not UTF-8: {error}") from None
    numbered = enumerate((line.strip() for line in text.splitlines()), 1)
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines:
        raise BadRequest(f"{path}", "nobody is in it, so nobody could be let in")
    return lines
