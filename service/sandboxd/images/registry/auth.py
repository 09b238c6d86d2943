"""Authentication to one endpoint: what it challenges us to, and the header that answers.

Basic (RFC 7617), and bearer tokens with scopes:
https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/. Credentials are bound
to their registry: a token server sees them only over TLS (or where plain http is allowed), and only
if its host is the registry's own, of the same domain, or named in the settings.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

from sandboxd.errors import Forbidden, RegistryError
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.settings import Endpoint, is_loopback

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
_PARAMETER: Final = re.compile(
    r'\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)'
)
_SCHEME: Final = re.compile(r"\s*([A-Za-z]+)(?:\s+|$)")
_LIFE_DEFAULT: Final = 60.0
"""Seconds for which a token is good whose server does not say."""
_LIFE_MARGIN: Final = 5.0
_SIZE_MAX: Final = 1 << 20
"""Bytes of a token server's answer."""
_CLIENT_ID: Final = "pytest-sandbox"


class Challenge(NamedTuple):
    """One challenge of a WWW-Authenticate header; the scheme in lower case."""

    scheme: str
    parameters: Mapping[str, str]


class Exchange(Protocol):
    """One request to a token server; the status and the whole body."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, /
    ) -> tuple[int, bytes]: ...


class _Cached(NamedTuple):
    token: str
    until: float


class Tokens:
    """Tokens that were handed out, until they end; shared by the clients of one process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._tokens: dict[tuple[Any, ...], _Cached] = {}

    def get(self, key: tuple[Any, ...]) -> str | None:
        with self._mutex:
            found = self._tokens.get(key)
            return found.token if found and found.until > time.monotonic() else None

    def put(self, key: tuple[Any, ...], token: str, seconds: float) -> None:
        with self._mutex:
            now = time.monotonic()
            self._tokens = {key: each for key, each in self._tokens.items() if each.until > now}
            self._tokens[key] = _Cached(token, now + seconds - _LIFE_MARGIN)

    def drop(self, token: str) -> None:
        """Forget a token that was refused."""
        with self._mutex:
            self._tokens = {k: each for k, each in self._tokens.items() if each.token != token}


_tokens: Final = Tokens()


class Authenticator:
    """Answers the challenges of one endpoint for one set of scopes."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials | None,
        scopes: tuple[str, ...],
        exchange: Exchange,
    ) -> None:
        self._endpoint, self._credentials, self._scopes = endpoint, credentials, scopes
        self._exchange = exchange
        self.header: str | None = None
        """The value of Authorization that the last challenge led to; None before the first."""

    def answer(self, headers: Mapping[str, str]) -> bool:
        """Whether there is a new answer to the challenges of a 401; `header` has it then.

        Raises Forbidden where nothing we have can answer, RegistryError for a token server that
        fails or lies.
        """
        challenges = parse_challenges(headers.get("www-authenticate", ""))
        before, self.header = self.header, None
        for challenge in challenges:
            if challenge.scheme == "bearer":
                self.header = f"Bearer {self._token(challenge.parameters, before)}"
                return self.header != before
            if challenge.scheme == "basic" and self._credentials and self._credentials.username:
                self.header = _basic(self._credentials)
                return self.header != before
        return False

    def _token(self, parameters: Mapping[str, str], refused: str | None) -> str:
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        scopes = tuple(dict.fromkeys((*self._scopes, *parameters.get("scope", "").split())))
        key = (realm, service, scopes, self._credentials)
        if refused:
            _tokens.drop(refused.partition(" ")[2])
        if found := _tokens.get(key):
            return found
        self._check_realm(realm)
        token, seconds = self._fetched(realm, service, scopes)
        _tokens.put(key, token, seconds)
        return token

    def _check_realm(self, realm: str) -> None:
        what = f"token server of {self._endpoint.domain}"
        host, is_plain = _server_of(realm)
        if not host:
            raise RegistryError(what, f"{realm[:200]!r} is no http URL of a server")
        own = urlsplit(self._endpoint.url).hostname or ""
        may_be_plain = self._endpoint.plain_http and (host == own or is_loopback(host))
        if is_plain and not may_be_plain:
            raise RegistryError(what, f"{realm[:200]} would be reached without TLS")
        if self._credentials and not self._may_see_credentials(host, own):
            mend = f'[registry."{self._endpoint.domain}"] token-hosts = ["{host}"]'
            why = f"{host} is of another domain and would see the credentials"
            raise Forbidden(what, why, f"if that is right, write in registries.toml: {mend}")

    def _may_see_credentials(self, host: str, own: str) -> bool:
        if host == own or host in self._endpoint.token_hosts:
            return True
        if is_loopback(own) or own.rpartition(".")[2].isdigit():
            return is_loopback(own) and is_loopback(host)
        domain = own.partition(".")[2] if own.count(".") > 1 else own
        return host == domain or host.endswith(f".{domain}")

    def _fetched(self, realm: str, service: str, scopes: tuple[str, ...]) -> tuple[str, float]:
        """https://distribution.github.io/distribution/spec/auth/jwt/: by GET, or with an identity
        token by POST."""
        fields = [("service", service)] if service else []
        headers = {"Accept": "application/json"}
        credentials = self._credentials
        if credentials and credentials.identity_token:
            fields += [("grant_type", "refresh_token"), ("client_id", _CLIENT_ID)]
            fields += [("refresh_token", credentials.identity_token), ("scope", " ".join(scopes))]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            status, body = self._exchange("POST", realm, headers, urlencode(fields).encode())
        else:
            fields += [("scope", scope) for scope in scopes]
            if credentials:
                fields.append(("account", credentials.username))
                headers["Authorization"] = _basic(credentials)
            joint = "&" if urlsplit(realm).query else "?"
            url = f"{realm}{joint}{urlencode(fields)}"
            status, body = self._exchange("GET", url, headers, None)
        return self._parsed(status, body)

    def _parsed(self, status: int, body: bytes) -> tuple[str, float]:
        what = f"token server of {self._endpoint.domain}"
        if status in (401, 403):
            mend = f"docker login {self._endpoint.domain}"
            if self._credentials:
                raise Forbidden(what, "unauthorized: it refused the credentials", mend)
            raise Forbidden(what, "unauthorized: it wants credentials", mend)
        if status != 200:
            raise RegistryError(what, f"it answered with status {status}")
        try:
            document = json.loads(body) if len(body) <= _SIZE_MAX else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise RegistryError(what, "its answer is no JSON object of reasonable size")
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise RegistryError(what, "its answer holds no token")
        life = document.get("expires_in")
        usable = isinstance(life, int | float) and not isinstance(life, bool) and life > 0
        return token, min(float(life), 3600.0) if usable else _LIFE_DEFAULT  # type: ignore[arg-type]


def parse_challenges(header: str) -> list[Challenge]:
    """RFC 9110, section 11.6.1; what is malformed ends the list."""
    challenges: list[Challenge] = []
    position = 0
    while match := _SCHEME.match(header, position):
        scheme, position = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, position):
            quoted = found[2]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else found[3]
            parameters.setdefault(found[1].lower(), value)
            position = found.end()
        challenges.append(Challenge(scheme, parameters))
    return challenges


def _server_of(url: str) -> tuple[str, bool]:
    """The host of an http or https URL, empty for any other; and whether it is without TLS."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "", False
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return "", False
    return host, parts.scheme == "http"


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
