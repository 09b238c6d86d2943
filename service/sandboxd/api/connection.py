"""One client's connection: who may have one, when it has ended, and how a handler takes it over."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import StreamReader, web

from sandboxd.api.hangups import Hangups, has_hung_up
from sandboxd.api.peer import is_own_user
from sandboxd.api.replies import encoded, failure

KEEPALIVE_SECONDS = 3600.0
_LONGEST_LINE = 64 << 10
_LARGEST_HEADER = 64 << 10
_REFUSAL_SECONDS = 1.0

_FOREIGN_USER = encoded({"message": "this socket serves only the user whose service it is"})
_FOREIGN_USER_ANSWER = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_FOREIGN_USER), _FOREIGN_USER)
)


class Connection(web.RequestHandler):
    """aiohttp's HTTP/1 protocol, but one that goes on answering after the client's half-close."""

    __slots__ = ("_hangups", "_sock", "body", "half_closed")

    def __init__(self, server: web.Server, hangups: Hangups) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=_LONGEST_LINE,
            max_field_size=_LARGEST_HEADER,
            auto_decompress=False,
        )
        self._hangups = hangups
        self._sock: socket.socket | None = None
        self.half_closed = False
        """The client has closed its sending side."""
        self.body: StreamReader | None = None
        """The body of the request that is being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        if not is_own_user(sock):
            self._refuse(transport)
            return
        self._sock = sock
        super().connection_made(transport)

    def _refuse(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FOREIGN_USER_ANSWER)
        transport.write_eof()
        self.close()  # so that what is received is not read as requests
        # Closing before the request is read would reset the connection under the answer: unix(7).
        asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and self.body is not None and not self.body.is_eof():
            # Nothing can follow a body that has not ended, but for the parser's error about it:
            # aiohttp keeps that for an answer of its own, and the handler would wait for ever.
            self.body.set_exception(web.RequestPayloadError("the body is malformed"))

    def eof_received(self) -> bool:  # type: ignore[override]
        return self.keep_open_for_answers()

    def keep_open_for_answers(self) -> bool:
        """Whether the peer still reads; if so, its complete end is watched for from now on."""
        self.half_closed = True
        transport, sock = self.transport, self._sock
        if transport is None or sock is None or has_hung_up(sock.fileno()):
            return False
        self._hangups.watch(sock.fileno(), transport)
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._sock is not None:
            self._hangups.forget(self._sock.fileno())
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is not HTTP: JSON like every other error."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        if status >= 500:
            self.log_exception("request failed", exc_info=exc)
        response = failure(status, " ".join((message or "bad request").split()))
        response.force_close()
        return response


def connection_of(request: web.BaseRequest) -> Connection:
    protocol: Any = request.protocol
    assert isinstance(protocol, Connection)
    return protocol
