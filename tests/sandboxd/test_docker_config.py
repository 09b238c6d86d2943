"""The docker command's credentials: its file, its helpers, and what must never be told."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sandboxd.docker_config import Credentials, credentials_for, domain_of
from sandboxd.errors import BadRequest, HostLacks

_HELPER = """#!/bin/sh
read server
echo "$1 $server" >> {log}
{body}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes config.json; with `helper`, also a program docker-credential-fake on PATH."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(document: object, helper: str = "") -> Path:
        (tmp_path / "config.json").write_text(json.dumps(document))
        program = tmp_path / "docker-credential-fake"
        program.write_text(_HELPER.format(log=tmp_path / "log", body=helper))
        program.chmod(0o755)
        return tmp_path

    return write


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_nobody_is_logged_in_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    assert credentials_for("docker.io") is None


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v2/", "registry.example"),
    ],
)
def test_auths_are_found_by_host_or_url(config: Any, key: str, domain: str) -> None:
    config({"auths": {key: _auth("me", "pass:word")}})
    assert credentials_for(domain) == ("me", "pass:word", "")
    assert credentials_for("other.example") is None


def test_an_identity_token_stands_for_both(config: Any) -> None:
    config({"auths": {"r.example": {"identitytoken": "tok"}}})
    assert credentials_for("r.example") == ("", "", "tok")


def test_a_registrys_own_helper_comes_before_the_store(config: Any) -> None:
    where = config(
        {"credHelpers": {"r.example": "fake"}, "credsStore": "missing"},
        """printf '{"Username":"u","Secret":"s"}'""",
    )
    assert credentials_for("r.example") == ("u", "s", "")
    assert (where / "log").read_text() == "get r.example\n"


def test_the_store_is_asked_in_dockers_words(config: Any) -> None:
    where = config({"credsStore": "fake"}, """printf '{"Username":"<token>","Secret":"t"}'""")
    assert credentials_for("docker.io") == ("", "", "t")
    assert (where / "log").read_text() == "get https://index.docker.io/v1/\n"


def test_a_store_that_knows_nobody(config: Any) -> None:
    config({"credsStore": "fake"}, "echo 'credentials not found in native keychain'; exit 1")
    assert credentials_for("r.example") is None


@pytest.mark.parametrize(
    ("helper", "why"),
    [
        ("echo s3cret; echo s3cret >&2; exit 3", "ended with status 3"),
        ("echo s3cret", "no JSON object"),
        ("echo '[]'", "no JSON object"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(config: Any, helper: str, why: str) -> None:
    config({"credsStore": "fake"}, helper)
    with pytest.raises(HostLacks, match=why) as caught:
        credentials_for("r.example")
    assert "s3cret" not in repr(caught.value)
    assert "docker-credential-fake" in str(caught.value)


def test_a_helper_that_is_missing(config: Any) -> None:
    config({"credsStore": "not-there"})
    with pytest.raises(HostLacks, match="not on PATH") as caught:
        credentials_for("r.example")
    assert "install docker-credential-not-there" in caught.value.mend


def test_a_helper_is_a_name_and_no_path(config: Any) -> None:
    config({"credsStore": "../../bin/sh"})
    with pytest.raises(BadRequest, match="not the name of a program"):
        credentials_for("r.example")


@pytest.mark.parametrize("document", [[], "text", {"auths": {"r.example": {"auth": "%%%"}}}])
def test_a_damaged_configuration_is_an_error(config: Any, document: object) -> None:
    config(document)
    with pytest.raises(BadRequest, match=r"config\.json"):
        credentials_for("r.example")


def test_passwords_are_not_shown() -> None:
    assert "hush" not in repr(Credentials("me", "hush", "hush"))


@pytest.mark.parametrize(
    ("reference", "domain"),
    [
        ("busybox", "docker.io"),
        ("user/app:1", "docker.io"),
        ("index.docker.io/library/busybox", "docker.io"),
        ("localhost/app", "localhost"),
        ("r.example/app", "r.example"),
        ("host:5000/a/b@sha256:x", "host:5000"),
    ],
)
def test_the_registry_of_a_name(reference: str, domain: str) -> None:
    assert domain_of(reference) == domain
