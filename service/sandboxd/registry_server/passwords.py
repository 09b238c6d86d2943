"""Password hashes of htpasswd(1) files, by the system's own crypt(3).

bcrypt (`htpasswd -B`), and whatever else libxcrypt verifies: yescrypt, SHA-512, SHA-256. Apache's
MD5 (`$apr1$`), plain SHA-1 and DES are refused: a stolen file would give the passwords away.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hmac
import threading
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from sandboxd.errors import BadRequest, HostLacks

_STRONG: Final = ("$2a$", "$2b$", "$2y$", "$y$", "$7$", "$gy$", "$6$", "$5$")
_NAMES: Final = ("libcrypt.so.1", "libcrypt.so.2")
_SECRET_MAX: Final = 512
"""Bytes that libxcrypt takes: CRYPT_MAX_PASSPHRASE_SIZE."""
_TRIAL: Final = b"x"

_mutex = threading.Lock()


@dataclass(frozen=True, slots=True)
class Password:
    """A hash that this machine can verify."""

    hashed: str

    @classmethod
    def parse(cls, hashed: str) -> Self:
        """Raises BadRequest for a weak or malformed hash, HostLacks without a libcrypt."""
        if not hashed.startswith(_STRONG):
            raise BadRequest("password", "its hash is not one of bcrypt", "htpasswd -B FILE USER")
        if _crypt(_TRIAL, hashed.encode()) is None:
            raise BadRequest("password", "its hash is malformed", "htpasswd -B FILE USER")
        return cls(hashed)

    def matches(self, secret: str) -> bool:
        """Takes as long as the hash wants it to, whatever the answer."""
        raw = secret.encode("utf-8", "surrogateescape")
        if len(raw) >= _SECRET_MAX or b"\0" in raw:
            return False
        found = _crypt(raw, self.hashed.encode())
        return found is not None and hmac.compare_digest(found, self.hashed.encode())


def _crypt(secret: bytes, setting: bytes) -> bytes | None:
    """crypt(3); None where it knows no such hash. Its result lies in static memory."""
    with _mutex:
        found: bytes | None = _library().crypt(secret, setting)
    return None if found is None or found.startswith(b"*") else found


@cache
def _library() -> ctypes.CDLL:
    for name in (*_NAMES, ctypes.util.find_library("crypt")):
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except (OSError, TypeError):
            continue
        library.crypt.argtypes, library.crypt.restype = [ctypes.c_char_p] * 2, ctypes.c_char_p
        return library
    mend = "install libcrypt1 (libxcrypt), or use --token-file"
    raise HostLacks("verify passwords", "this machine has no libcrypt", mend)
