"""A blob's bytes as they come from a registry, verified, and gone on with where a connection broke.

RFC 9110, section 14: a part is asked for from the first byte that is missing, and what the answer
says it holds is compared with that. A server that knows no ranges, or lies about them, is read once
more from the beginning. Whatever it says, the digest over all bytes decides.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Final

from sandboxd.errors import RegistryError
from sandboxd.images.registry.client import RegistryClient, Response
from sandboxd.images.registry.manifests import Descriptor
from sandboxd.images.registry.settings import Network

_log = logging.getLogger("sandboxd.images")
_BLOCK: Final = 1 << 18
_BREAKS_MAX: Final = 100
"""Times that a connection may break, however far each one gets."""


class BlobStream:
    """A reader of one blob. `on_bytes` is told how many compressed bytes have come so far."""

    def __init__(
        self,
        client: RegistryClient,
        blob: Descriptor,
        network: Network,
        on_bytes: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._client, self._blob, self._network = client, blob, network
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()
        self._size = 0
        self._response: Response | None = None
        self._in_row = self._breaks = 0
        self._ranges = True
        self.verified = False
        """The end was reached, and size and digest are what was promised."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, empty at the end. Raises RegistryError."""
        while not self.verified:
            try:
                response = self._response or self._opened()
                piece = response.read(min(size, _BLOCK))
            except OSError as error:
                self._broken(error)
                continue
            if piece:
                self._took(piece)
                return piece
            if self._size < self._blob.size:
                self._broken(ConnectionError("it ends too early"))
                continue
            self._verify()
        return b""

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _took(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._blob.size:
            raise self._error(f"longer than the {self._blob.size} bytes that were promised")
        self._hash.update(piece)
        self._in_row = 0
        self._on_bytes(self._size)

    def _verify(self) -> None:
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._blob.digest:
            raise self._error(f"its digest is {digest}")
        self.verified = True
        self.close()

    def _opened(self) -> Response:
        """The answer that goes on with the first missing byte."""
        digest, size = self._blob.digest, self._blob.size
        try:
            found = self._client.partial_blob(digest, size, self._size if self._ranges else 0)
        except RegistryError:
            if not self._size or not self._ranges:
                raise
            self._ranges = False
            found = self._client.partial_blob(digest, size)
        self._response = found.response
        missing = self._size - found.offset
        while missing:
            piece = found.response.read(min(missing, _BLOCK))
            if not piece:
                raise ConnectionError("it ends too early")
            missing -= len(piece)
        return found.response

    def _broken(self, error: OSError) -> None:
        self.close()
        self._in_row += 1
        self._breaks += 1
        if self._in_row >= self._network.attempts or self._breaks >= _BREAKS_MAX:
            why = f"the connection broke {self._breaks} times: {error}"
            raise self._error(why) from error
        _log.info("blob %s: %s after %d bytes: going on", self._blob.digest, error, self._size)
        if self._in_row > 1:
            time.sleep(self._network.backoff * 2 ** (self._in_row - 2))

    def _error(self, why: str) -> RegistryError:
        return RegistryError(f"blob {self._blob.digest}", why)
