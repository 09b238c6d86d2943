"""What needs no server: credentials in headers, platforms, challenges, manifests."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.registry.auth import parse_challenges
from sandboxd.images.registry.credentials import from_header
from sandboxd.images.registry.manifests import (
    DOCKER_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)
from sandboxd.images.registry.platforms import Platform, choose


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_header_comes_in_both_alphabets(encode: object) -> None:
    document = json.dumps({"username": "ü?>", "password": "p", "serveraddress": "x"}).encode()
    header = encode(document).decode()  # type: ignore[operator]
    assert from_header(header) == ("ü?>", "p", "")
    assert from_header(header.rstrip("=")) == ("ü?>", "p", "")


def test_a_header_that_names_nobody() -> None:
    for header in ("", "e30=", base64.b64encode(b'{"username":""}').decode()):
        assert from_header(header) is None


@pytest.mark.parametrize("header", ["%", "bm8=", "W10=", base64.b64encode(b'{"a').decode()])
def test_a_malformed_header(header: str) -> None:
    with pytest.raises(BadRequest):
        from_header(header)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", ("linux", "amd64", "")),
        ("linux/x86_64", ("linux", "amd64", "")),
        ("aarch64", ("linux", "arm64", "")),
        ("linux/arm64/v8", ("linux", "arm64", "")),
        ("linux/arm/v7", ("linux", "arm", "")),
        ("linux/armel", ("linux", "arm", "v6")),
    ],
)
def test_platforms_are_normal(text: str, expected: tuple[str, str, str]) -> None:
    assert Platform.parse(text) == expected


def test_a_newer_processor_runs_what_an_older_one_does() -> None:
    variants = ["v5", "v6", "v7", "v8"]
    offered = [Platform.parse(f"linux/arm/{variant}") for variant in variants]
    assert choose(Platform.parse("linux/arm/v7"), offered) == 2
    assert choose(Platform.parse("linux/arm/v6"), offered) == 1
    assert choose(Platform.parse("linux/arm/v6"), offered[2:]) is None
    amd64 = Platform.parse("linux/amd64")
    assert choose(amd64, [Platform.parse("linux/amd64/v3"), amd64, None]) == 1
    assert choose(amd64, [Platform.parse("windows/amd64"), None]) == 1
    with pytest.raises(BadRequest, match="invalid platform specifier"):
        Platform.parse("linux/amd64/v1/x")


def test_challenges_of_one_header() -> None:
    header = 'Basic realm="a, \\"b\\"", Bearer realm="https://x/t",service=s, scope="r:x:pull"'
    basic, bearer = parse_challenges(header)
    assert basic == ("basic", {"realm": 'a, "b"'})
    assert bearer.parameters == {"realm": "https://x/t", "service": "s", "scope": "r:x:pull"}


@given(st.text(max_size=200))
def test_any_challenge_ends(header: str) -> None:
    parse_challenges(header)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size",
             "platform", "annotations", "os", "artifactType", "subject"]
        ),
        inner,
    ),
    max_leaves=20,
))  # fmt: skip
def test_any_document_is_a_manifest_or_an_error(document: object) -> None:
    if isinstance(document, dict):
        document = {**document, "schemaVersion": 2}
    try:
        manifest = Manifest.parse(json.dumps(document).encode(), OCI_MANIFEST)
        _ = manifest.config, manifest.layers, manifest.annotations, manifest.subject
        _ = manifest.manifests
    except SandboxError:
        pass


def test_what_a_descriptor_says_comes_back() -> None:
    document = {
        "mediaType": "a/b",
        "digest": "sha256:" + "0" * 64,
        "size": 3,
        "annotations": {"k": "v"},
        "platform": {"os": "linux", "architecture": "arm", "variant": "v6"},
        "artifactType": "c/d",
    }
    assert Descriptor.parse(document).to_document() == document


def test_the_kind_of_a_document_without_a_type() -> None:
    index = Manifest.parse(b'{"schemaVersion":2,"manifests":[]}', "text/plain")
    assert (index.media_type, index.is_index) == (OCI_INDEX, True)
    docker = Manifest.parse(b'{"schemaVersion":2,"manifests":[]}', f"{DOCKER_LIST}; charset=utf-8")
    assert docker.media_type == DOCKER_LIST
