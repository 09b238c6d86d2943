"""Requests to one endpoint: authenticated, tried again where that can help, redirected with care.

Credentials go to the endpoint's own server alone (CVE-2020-15157 and its relatives): a redirect to
any other scheme, host or port is followed without them, and never from https to http.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import BinaryIO, Final

from sandboxd.errors import RegistryError, SandboxError, Unavailable
from sandboxd.images.registry.auth import Authenticator
from sandboxd.images.registry.connection import Connection, Response, Server, joined
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.settings import Endpoint, Network, is_loopback

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_REDIRECTS_MAX: Final = 5
_TRY_AGAIN: Final = frozenset((408, 429, 500, 502, 503, 504))
_WAIT_MAX: Final = 60.0
"""Seconds that a server may ask us to wait before we give up instead."""
_ANSWERS_MAX: Final = 2
"""Challenges that one request answers: a token may have ended between two requests."""
_HOPELESS: Final = (ssl.SSLError, socket.gaierror, ConnectionRefusedError)
"""What another attempt right away would not change."""

Body = bytes | BinaryIO | None


class Origin:
    """One endpoint as one repository's client sees it. For one thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        network: Network,
        credentials: Credentials | None,
        scopes: tuple[str, ...],
    ) -> None:
        self.endpoint, self._network = endpoint, network
        self.server = Server.of(endpoint.url)
        self._connection = Connection(self.server, endpoint.ca_file, network.timeout)
        self.authenticator = Authenticator(endpoint, credentials, scopes, self._exchange)
        self._active = self._connection
        self._aborted = threading.Event()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body = None,
        size: int | None = None,
    ) -> Response:
        """The answer, whatever its status is, after what could be mended was.

        `size` is that of a body that is a file. Raises RegistryError where no answer comes, and
        what `Authenticator.answer` raises.
        """
        start = _position(body)
        answers = 0
        attempt = 1
        while True:
            own = Server.of(url) == self.server
            self._check_aborted()
            try:
                response = self._redirected(method, url, self._head(headers, size, own), body)
            except (OSError, http.client.HTTPException) as error:
                self._check_aborted()
                hopeless = isinstance(error, _HOPELESS) or attempt >= self._network.attempts
                if hopeless or not _rewound(body, start):
                    raise self._unreachable(error) from error
                self._wait(self._network.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
                attempt += 1
                continue
            if response.status == 401 and own and answers < _ANSWERS_MAX:
                answers += 1
                if _rewound(body, start) and self.authenticator.answer(response.headers):
                    _drained(response)
                    continue
            if response.status not in _TRY_AGAIN or attempt >= self._network.attempts:
                return response
            pause = _retry_after(response.headers)
            if (pause is not None and pause > _WAIT_MAX) or not _rewound(body, start):
                return response
            _drained(response)
            backoff = self._network.backoff * 2 ** (attempt - 1)
            self._wait(backoff if pause is None else pause)
            attempt += 1

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        """From another thread: the request in progress, and all later ones, raise Unavailable."""
        self._aborted.set()
        self._active.abort()

    def _head(self, headers: Mapping[str, str], size: int | None, own: bool) -> dict[str, str]:
        head = dict(headers)
        if size is not None:
            head["Content-Length"] = str(size)
        if own and self.authenticator.header:
            head["Authorization"] = self.authenticator.header
        return head

    def _redirected(self, method: str, url: str, head: dict[str, str], body: Body) -> Response:
        for _ in range(_REDIRECTS_MAX):
            response = self._sent(method, url, head, body)
            target = response.headers.get("location")
            if response.status not in _REDIRECTS or target is None or method not in ("GET", "HEAD"):
                return response
            before, url = url, joined(url, target)
            _drained(response)
            self._check_redirect(before, url)
            if Server.of(url) != Server.of(before):
                head = {name: value for name, value in head.items() if name != "Authorization"}
        raise RegistryError(self._name, f"more than {_REDIRECTS_MAX} redirects")

    def _sent(self, method: str, url: str, head: dict[str, str], body: Body) -> Response:
        server = Server.of(url)
        if server != self.server:
            elsewhere = Connection(server, self.endpoint.ca_file, self._network.timeout)
            self._active = elsewhere
            return elsewhere.send(method, url, head, body, keep=False)
        self._active = self._connection
        reused = self._connection.is_open
        try:
            return self._connection.send(method, url, head, body, keep=True)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._connection.close()
            if not reused or not (body is None or isinstance(body, bytes)):
                raise
        except BaseException:
            self._connection.close()
            raise
        # The server had closed the kept connection, as it may at any time.
        self._check_aborted()
        try:
            return self._connection.send(method, url, head, body, keep=True)
        except BaseException:
            self._connection.close()
            raise

    def _check_redirect(self, before: str, after: str) -> None:
        """Raises RegistryError for one that leaves TLS, or http for a place that is not allowed."""
        source, target = Server.of(before), Server.of(after)
        if target.scheme == "https" or target == source:
            return
        if source.scheme == "https" or not (
            is_loopback(target.authority) or target.host == self.server.host
        ):
            why = f"it redirects to {target.scheme}://{target.authority}, without TLS"
            raise RegistryError(self._name, why)

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """One request to a token server: no redirects, nothing of the registry's headers."""
        for attempt in range(1, self._network.attempts + 1):
            connection = Connection(Server.of(url), self.endpoint.ca_file, self._network.timeout)
            self._active = connection
            self._check_aborted()
            try:
                response = connection.send(method, url, headers, body, keep=False)
                if response.status not in _TRY_AGAIN or attempt == self._network.attempts:
                    return response.status, response.body(1 << 20)
                pause = _retry_after(response.headers)
                response.close()
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, _HOPELESS) or attempt == self._network.attempts:
                    raise self._unreachable(error, f"token server of {self._name}") from error
                pause = None
            finally:
                connection.close()
            pause = self._network.backoff * 2 ** (attempt - 1) if pause is None else pause
            self._wait(min(pause, _WAIT_MAX))
        raise AssertionError("unreachable")

    def _wait(self, seconds: float) -> None:
        self._aborted.wait(seconds)

    def _check_aborted(self) -> None:
        if self._aborted.is_set():
            raise Unavailable(self._name, "whoever asked for it went away")

    @property
    def _name(self) -> str:
        kind = "mirror" if self.endpoint.is_mirror else "registry"
        return f"{kind} {self.endpoint.domain}"

    def _unreachable(self, error: Exception, what: str = "") -> SandboxError:
        why = _reason(error)
        mend = "check the name and the network, or load a file: sandboxctl image load -i FILE"
        section = f'[registry."{self.endpoint.domain}"]'
        if isinstance(error, ssl.SSLCertVerificationError):
            mend = f"write in registries.toml: {section} ca-file = PATH of its authority"
            why = error.verify_message or why
        elif isinstance(error, ssl.SSLError):
            mend = f"if it speaks no TLS, write in registries.toml: {section} plain-http = true"
        return RegistryError(what or self._name, why[:300], mend)


def _position(body: Body) -> int | None:
    """Where a file's body begins; None where it cannot be sent again."""
    if body is None or isinstance(body, bytes):
        return 0
    return body.tell() if body.seekable() else None


def _rewound(body: Body, start: int | None) -> bool:
    """Whether the body can be sent again, from its beginning."""
    if body is None or isinstance(body, bytes):
        return True
    if start is None:
        return False
    body.seek(start)
    return True


def _drained(response: Response) -> None:
    """Read a short body to its end, so that the connection can be used again."""
    try:
        response.body(1 << 16)
    except (OSError, SandboxError):
        response.close()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks us to wait: RFC 9110, section 10.2.3. None where it does not."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def _reason(error: Exception) -> str:
    own = error.strerror if isinstance(error, OSError) else ""
    return own or str(error) or repr(error)
