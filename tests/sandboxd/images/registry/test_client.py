"""The client: whom it believes, to whom it shows its credentials, and when it tries again."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sandboxd.errors import Forbidden, NotFound, RegistryError, SandboxError
from sandboxd.images.reference import Reference
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.login import log_in
from sandboxd.images.registry.settings import RegistrySettings
from tests.sandboxd.images.registry.scripted import (
    Asked,
    Reply,
    ScriptedRegistry,
    always,
    digest,
    on,
)

ALICE = Credentials("alice", "wonder:land")
BASIC = f"Basic {base64.b64encode(b'alice:wonder:land').decode()}"
Make = Callable[..., RegistryClient]


@pytest.fixture
def registry(scripted: Callable[..., Any]) -> Iterator[ScriptedRegistry]:
    with scripted() as one:
        yield one


@pytest.fixture
def other(scripted: Callable[..., Any]) -> Iterator[ScriptedRegistry]:
    with scripted() as one:
        yield one


@pytest.fixture
def client(registry: ScriptedRegistry) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(credentials: Credentials | None = None, **options: Any) -> RegistryClient:
            reference = Reference.parse(f"{registry.authority}/team/app:1")
            made = RegistryClient(reference, RegistrySettings.load(), credentials, **options)
            return stack.enter_context(made)

        yield make


def _authorizations(registry: ScriptedRegistry) -> list[str | None]:
    return [asked.headers.get("authorization") for asked in registry.asked]


def _locked(expected: str, challenge: str) -> Callable[[Asked], Reply | None]:
    """Lets in who has that Authorization."""

    def script(asked: Asked) -> Reply | None:
        if not asked.path.startswith("/v2/") or asked.headers.get("authorization") == expected:
            return None
        return Reply(401, b"{}", {"WWW-Authenticate": challenge})

    return script


def _token_server(
    registry: ScriptedRegistry, answer: object = None, status: int = 200
) -> Callable[[Asked], Reply | None]:
    document = {"token": "tok.en", "expires_in": 300} if answer is None else answer
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda asked: Reply(status, body) if asked.path.startswith("/token") else None


def _bearer(registry: ScriptedRegistry, realm: str = "") -> str:
    realm = realm or f"{registry.url}/token"
    return f'Bearer realm="{realm}",service="reg",scope="repository:team/app:pull"'


def test_nothing_is_shown_before_it_is_asked_for(registry: ScriptedRegistry, client: Make) -> None:
    registry.add_image(b"")
    client(ALICE).manifest("1")
    assert _authorizations(registry) == [None]


def test_basic(registry: ScriptedRegistry, client: Make) -> None:
    registry.add_image(b"")
    registry.script(_locked(BASIC, 'Basic realm="x"'))
    one = client(ALICE)
    one.manifest("1")
    one.manifest("1")
    assert _authorizations(registry) == [None, BASIC, BASIC]
    with pytest.raises(SandboxError, match="docker login"):
        client().manifest("1")


def test_a_token_is_asked_for_once_with_its_scopes(
    registry: ScriptedRegistry, client: Make
) -> None:
    registry.add_image(b"")
    registry.script(_locked("Bearer tok.en", _bearer(registry)))
    registry.script(_token_server(registry))
    client(ALICE).manifest("1")
    client(ALICE).manifest("1")
    (token,) = [asked for asked in registry.asked if asked.path.startswith("/token")]
    assert token.headers["authorization"] == BASIC
    assert "service=reg" in token.path
    assert token.path.count("scope=") == 1
    assert "scope=repository%3Ateam%2Fapp%3Apull" in token.path


def test_a_push_asks_for_more(registry: ScriptedRegistry, client: Make) -> None:
    registry.script(_locked("Bearer tok.en", _bearer(registry)))
    registry.script(_token_server(registry))
    registry.script(
        lambda asked: Reply(202) if asked.headers.get("authorization") == "Bearer tok.en" else None
    )
    pushing = client(ALICE, push=True, also_pull=["team/base"])
    pushing.request("POST", "blobs/uploads/", expect=(202,)).close()
    (token,) = registry.paths("/token")
    assert "repository%3Ateam%2Fapp%3Apull%2Cpush" in token
    assert "repository%3Ateam%2Fbase%3Apull" in token


def test_an_identity_token_is_sent_in_a_body(registry: ScriptedRegistry, client: Make) -> None:
    registry.add_image(b"")
    registry.script(_locked("Bearer acc", _bearer(registry)))
    registry.script(_token_server(registry, {"access_token": "acc"}))
    client(Credentials("", "", "identity")).manifest("1")
    (token,) = [asked for asked in registry.asked if asked.path.startswith("/token")]
    assert token.method == "POST"
    assert b"refresh_token=identity" in token.body
    assert "identity" not in token.path


def test_a_token_that_has_ended_is_renewed(registry: ScriptedRegistry, client: Make) -> None:
    registry.add_image(b"")
    good = ["first"]
    registry.script(lambda asked: _locked(f"Bearer {good[0]}", _bearer(registry))(asked))
    registry.script(
        lambda asked: (
            Reply(body=json.dumps({"token": good[0]}).encode())
            if asked.path.startswith("/token")
            else None
        )
    )
    one = client(ALICE)
    one.manifest("1")
    good[0] = "second"
    one.manifest("1")
    assert len(registry.paths("/token")) == 2


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        (b"no json", 200, "no JSON"),
        (b"[]", 200, "no JSON object"),
        (b"{}", 200, "no token"),
        ({"token": "a b"}, 200, "no token"),
        ({"token": "a\r\nX-Injected: 1"}, 200, "no token"),
        ({"token": 3}, 200, "no token"),
        (b'{"token":"' + b"x" * (2 << 20) + b'"}', 200, "longer than"),
        ({}, 500, "status 500"),
        ({}, 302, "status 302"),
    ],
)
def test_a_token_server_that_lies(
    registry: ScriptedRegistry, client: Make, answer: object, status: int, why: str
) -> None:
    registry.script(_locked("Bearer tok.en", _bearer(registry)))
    registry.script(_token_server(registry, answer, status))
    with pytest.raises(SandboxError, match=why):
        client(ALICE).manifest("1")


def test_a_token_server_that_refuses(registry: ScriptedRegistry, client: Make) -> None:
    registry.script(_locked("Bearer tok.en", _bearer(registry)))
    registry.script(_token_server(registry, {}, 401))
    with pytest.raises(Forbidden, match="refused the credentials"):
        client(ALICE).manifest("1")


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("https://evil.example/token", Forbidden),
        ("http://evil.example/token", RegistryError),
        ("file:///etc/passwd", RegistryError),
        ("https://user@127.0.0.1/", RegistryError),
        ("", RegistryError),
    ],
)
def test_credentials_go_to_the_registrys_own_token_server(
    registry: ScriptedRegistry, client: Make, realm: str, error: type[SandboxError]
) -> None:
    challenge = f'Bearer realm="{realm}",service="reg"'
    registry.script(_locked("Bearer tok.en", challenge))
    with pytest.raises(error, match="token server"):
        client(ALICE).manifest("1")


def test_a_token_that_does_not_help_is_not_tried_for_ever(
    registry: ScriptedRegistry, client: Make
) -> None:
    registry.script(_locked("Bearer never", _bearer(registry)))
    registry.script(_token_server(registry))
    with pytest.raises(Forbidden, match="pull access denied"):
        client(ALICE).manifest("1")
    assert len(registry.asked) < 8


def test_a_redirect_to_another_server_gets_no_credentials(
    registry: ScriptedRegistry, other: ScriptedRegistry, client: Make
) -> None:
    blob = b"content"
    other.blobs[digest(blob)] = blob
    target = f"{other.url}/v2/x/blobs/{digest(blob)}"
    registry.script(on("/blobs/", Reply(307, headers={"Location": target})))
    registry.script(_locked(BASIC, "Basic"))
    assert client(ALICE).blob(digest(blob), len(blob)).body() == blob
    assert _authorizations(registry) == [None, BASIC]
    assert _authorizations(other) == [None]


def test_a_redirect_on_the_same_server_keeps_them(registry: ScriptedRegistry, client: Make) -> None:
    blob = b"content"
    registry.blobs[digest(blob)] = blob
    registry.script(
        on("/team/app/blobs/", Reply(302, headers={"Location": f"/v2/x/blobs/{digest(blob)}"}))
    )
    registry.script(_locked(BASIC, "Basic"))
    assert client(ALICE).blob(digest(blob), len(blob)).body() == blob
    assert _authorizations(registry) == [None, BASIC, BASIC]


@pytest.mark.parametrize(
    "target", ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://[::bad"]
)
def test_redirects_that_are_not_followed(
    registry: ScriptedRegistry, client: Make, target: str
) -> None:
    registry.script(always("/blobs/", Reply(307, headers={"Location": target})))
    with pytest.raises(RegistryError):
        client().blob("sha256:" + "0" * 64, 7)


def test_redirects_in_a_circle(registry: ScriptedRegistry, client: Make) -> None:
    registry.script(always("/blobs/", Reply(307, headers={"Location": "/v2/a/blobs/b"})))
    with pytest.raises(RegistryError, match="more than 5 redirects"):
        client().blob("sha256:" + "0" * 64, 7)


def test_an_upload_is_sent_again_from_its_beginning(
    registry: ScriptedRegistry, client: Make
) -> None:
    registry.script(on("/blobs/uploads/x", Reply(503), Reply(201)))
    body = io.BytesIO(b"skipped|content")
    body.seek(8)
    answer = client(push=True).request(
        "PUT", "blobs/uploads/x?digest=d", body=body, size=7, expect=(201,)
    )
    answer.close()
    assert [asked.body for asked in registry.asked] == [b"content", b"content"]


def test_a_location_on_another_server_gets_no_credentials(
    registry: ScriptedRegistry, other: ScriptedRegistry, client: Make
) -> None:
    registry.script(_locked(BASIC, "Basic"))
    pushing = client(ALICE, push=True)
    with pytest.raises(NotFound):
        pushing.request("GET", "tags/list")
    other.script(always("/upload", Reply(201)))
    pushing.request("PUT", f"{other.url}/upload", body=b"x", expect=(201,)).close()
    assert _authorizations(other) == [None]


def test_a_connection_that_the_server_closed_meanwhile(
    registry: ScriptedRegistry, client: Make
) -> None:
    registry.add_image(b"")
    raw = registry.manifests["1"][1]
    one = client()
    registry.script(on("/manifests/", Reply(body=raw, headers={"Connection": "close"})))
    assert one.manifest("1") == one.manifest("1")


def test_proxies_are_not_for_loopback(
    registry: ScriptedRegistry, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    registry.add_image(b"")
    assert client().manifest("1").layers


def test_a_proxy_gets_the_whole_url(
    registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, quick_settings: Any
) -> None:
    registry.add_image(b"")
    quick_settings.write_text('[registry."r.example"]\nplain-http = true\n')
    monkeypatch.setenv("http_proxy", f"http://me:pass@{registry.authority}")
    monkeypatch.delenv("no_proxy", raising=False)
    reference = Reference.parse("r.example/app:1")
    with RegistryClient(reference, RegistrySettings.load(), None) as one:
        one.manifest("1")
    (asked,) = registry.asked
    assert asked.path == "http://r.example:80/v2/app/manifests/1"
    assert asked.headers["proxy-authorization"].startswith("Basic ")


def test_login(registry: ScriptedRegistry) -> None:
    registry.script(_locked(BASIC, "Basic"))
    log_in(registry.authority, ALICE)
    log_in(f"http://{registry.authority}/v2/", ALICE)
    with pytest.raises(Forbidden, match="incorrect username or password"):
        log_in(registry.authority, Credentials("alice", "no"))
    with pytest.raises(RegistryError, match="refused"):
        log_in("127.0.0.1:1", ALICE)


def test_a_server_that_speaks_no_http(client: Make, registry: ScriptedRegistry) -> None:
    headers = {"Content-Length": "many", "Connection": "close"}
    registry.script(always("/manifests/", Reply(body=b"{}", headers=headers)))
    with pytest.raises(SandboxError):
        client().manifest("1")
