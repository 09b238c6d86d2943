"""registries.toml: endpoints, plain http, mirrors, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.registry.settings import Endpoint, RegistrySettings, is_loopback


def _loaded(path: Path, text: str) -> RegistrySettings:
    path.write_text(text)
    return RegistrySettings.load(path)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    settings = RegistrySettings.load(tmp_path / "none.toml")
    hub = "https://registry-1.docker.io"
    assert settings.endpoints("docker.io") == (Endpoint(hub, "docker.io", False, None, False),)
    assert settings.endpoints("example.com:5000")[0].url == "https://example.com:5000"
    assert settings.endpoints("localhost:5000")[0].url == "http://localhost:5000"
    assert settings.network == (5, 60.0, 0.25)


def test_what_a_file_says_of_a_registry(tmp_path: Path) -> None:
    settings = _loaded(
        tmp_path / "r.toml",
        """
        [network]
        attempts = 2
        [registry."docker.io"]
        mirrors = ["https://mirror.example/hub/", "http://127.0.0.1:5001"]
        [registry."mirror.example"]
        ca-file = "/ca.pem"
        [registry."plain.example:80"]
        plain-http = true
        token-hosts = ["auth.example"]
        [registry."localhost:5443"]
        plain-http = false
        """,
    )
    assert settings.network.attempts == 2
    first, second, hub = settings.endpoints("docker.io")
    assert first == ("https://mirror.example/hub", "mirror.example", False, "/ca.pem", True, ())
    assert (second.url, second.plain_http, second.is_mirror) == (
        "http://127.0.0.1:5001",
        True,
        True,
    )
    assert (hub.domain, hub.is_mirror) == ("docker.io", False)
    (plain,) = settings.endpoints("plain.example:80")
    assert (plain.url, plain.token_hosts) == ("http://plain.example:80", ("auth.example",))
    assert settings.endpoints("localhost:5443")[0].url == "https://localhost:5443"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[registry", "no TOML"),
        ("[registries]", r"unknown section \[registries\]"),
        ("registry = 3", "registry is no table"),
        ('[registry."a"]\nplain_http = true', "unknown key plain_http: known are .*plain-http"),
        ('[registry."a"]\nplain-http = "yes"', "wrong type"),
        ('[registry."a"]\nmirrors = ["ftp://b"]', "is no URL"),
        ('[registry."a"]\nmirrors = [1]', "is no URL"),
        ('[registry."a"]\nmirrors = ["http://b.example"]', "without TLS"),
        ('[registry."a"]\ntoken-hosts = [1]', "no list of host names"),
        ("[network]\nattempts = 0", "too small"),
        ("[network]\ntimeout = true", "wrong type"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        _loaded(tmp_path / "r.toml", text)
    assert "r.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("registry.localhost:1", True),
        ("127.8.9.10:5000", True),
        ("[::1]:5000", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1:5000", False),
        ("example.com", False),
    ],
)
def test_loopback_is_known_by_the_name_alone(authority: str, expected: bool) -> None:
    assert is_loopback(authority) is expected
