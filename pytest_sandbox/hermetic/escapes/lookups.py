"""Questions to a name server (RFC 1035, section 4), and the answer that nobody is told anything.

REFUSED makes the C library say "temporary failure in name resolution", as it does without any
network: that somebody listens changes nothing for the test.
"""

from __future__ import annotations

import struct
from typing import Final

_HEADER: Final = struct.Struct("!6H")
_RESPONSE: Final = 0x8000
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_REFUSED: Final = 5


def question(query: bytes) -> tuple[str, int]:
    """(name, end of the question) of a query. Raises ValueError for what is none."""
    if len(query) < _HEADER.size or _HEADER.unpack_from(query)[2] != 1:
        raise ValueError("not one question")
    labels, at = [], _HEADER.size
    while at < len(query) and (length := query[at]):
        if length > 63:
            raise ValueError("a compressed name in a question")
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
        at += 1 + length
    if at + 5 > len(query):
        raise ValueError("a question that is cut off")
    return ".".join(labels), at + 5


def refusal(query: bytes, end: int) -> bytes:
    """The answer to a query whose question ends at `end`."""
    identity, flags = _HEADER.unpack_from(query)[:2]
    flags = _RESPONSE | flags & _RECURSION_DESIRED | _RECURSION_AVAILABLE | _REFUSED
    return _HEADER.pack(identity, flags, 1, 0, 0, 0) + query[_HEADER.size : end]
