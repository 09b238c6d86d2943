"""The key sequence that leaves a terminal's container running: ctrl-p,ctrl-q unless told other."""

from __future__ import annotations

from sandboxd.errors import BadRequest

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Looks for the sequence in what a client types; bytes of a half sequence are held back."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    @classmethod
    def parse(cls, keys: str) -> DetachKeys:
        """From Docker's notation: `a`, or `ctrl-` and one of `a-z@[\\]^_`, joined by commas."""
        return cls(bytes(_key(name) for name in (keys or DEFAULT).split(",")))

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the sequence is complete (the rest is dropped)."""
        if not self._sequence:
            return data, False
        out = bytearray()
        for byte in data:
            if byte != self._sequence[self._matched]:
                out += self._sequence[: self._matched]
                self._matched = 0
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    prefix, _, letter = name.partition("-")
    if prefix == "ctrl" and len(letter) == 1 and ("a" <= letter <= "z" or letter in "@[\\]^_"):
        return ord(letter.upper()) & 0x1F
    raise BadRequest("invalid detach keys", f"{name!r} is no key")
