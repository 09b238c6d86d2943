"""Names of images: what is accepted, what is refused, and that short and long forms are one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.errors import BadRequest
from sandboxd.images import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest", "tagged"),
    [
        ("busybox", "docker.io", "library/busybox", "", "", "busybox:latest"),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", "", "busybox:1.36"),
        ("docker.io/busybox", "docker.io", "library/busybox", "", "", "busybox:latest"),
        ("docker.io/library/busybox:x", "docker.io", "library/busybox", "x", "", "busybox:x"),
        ("index.docker.io/busybox", "docker.io", "library/busybox", "", "", "busybox:latest"),
        ("user/app", "docker.io", "user/app", "", "", "user/app:latest"),
        ("library/app", "docker.io", "library/app", "", "", "app:latest"),
        ("localhost/app:1", "localhost", "app", "1", "", "localhost/app:1"),
        ("localhost:5000/a/b", "localhost:5000", "a/b", "", "", "localhost:5000/a/b:latest"),
        ("reg.test/app", "reg.test", "app", "", "", "reg.test/app:latest"),
        ("[::1]:5000/app", "[::1]:5000", "app", "", "", "[::1]:5000/app:latest"),
        ("A/app", "A", "app", "", "", "A/app:latest"),
        (f"app@{DIGEST}", "docker.io", "library/app", "", DIGEST, "app:latest"),
        (f"app:1@{DIGEST}", "docker.io", "library/app", "1", DIGEST, "app:1"),
        ("a__b/c-d.e--f", "docker.io", "a__b/c-d.e--f", "", "", "a__b/c-d.e--f:latest"),
        ("app:_x.Y-2", "docker.io", "library/app", "_x.Y-2", "", "app:_x.Y-2"),
    ],
)
def test_accepted(text: str, domain: str, path: str, tag: str, digest: str, tagged: str) -> None:
    reference = Reference.parse(text)
    assert reference == Reference(domain, path, tag, digest)
    assert reference.tagged == tagged
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "UPPER", "user/App", "a b", "a//b", "/a", "a/", "-a", "a-", "a_", "a___b", "a..b",
        ":tag", "a:", "a:-x", "a:b:c", "a:" + "t" * 129, "a@", "a@sha256:abc", "a@sha256:",
        "@" + DIGEST, "a@b@" + DIGEST, "../a", "a/../b", "a\n", "a:x\n", "ä", "a\0", "host/é",
        "a" * 300, "a" * 64, "http://reg.test/a", "reg.test:port/a", "reg.test:/a", "٣", "a:٣",
    ],
)  # fmt: skip
def test_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid reference format"):
        Reference.parse(text)


_component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
_domain = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,5}){1,2}(:[0-9]{1,5})?", fullmatch=True)
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)


@given(
    st.one_of(st.just(""), _domain),
    st.lists(_component, min_size=1, max_size=3),
    st.one_of(st.just(""), _tag),
    st.booleans(),
)
def test_whatever_the_grammar_makes_is_parsed_and_printed_back(
    domain: str, components: list[str], tag: str, with_digest: bool
) -> None:
    if not domain:
        # With a dot it would be taken for a registry.
        components = [components[0].replace(".", "_"), *components[1:]]
    text = "/".join([*([domain] if domain else []), *components])
    text += f":{tag}" if tag else ""
    text += f"@{DIGEST}" if with_digest else ""
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(f"{reference.domain}/{reference.path}").name == reference.name
    assert reference.tag == tag
    if domain and domain not in ("docker.io", "index.docker.io"):
        assert (reference.domain, reference.path) == (domain, "/".join(components))


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BadRequest:
        return
    assert re.fullmatch(r"[\x21-\x7e]+", text)
    assert ".." not in reference.path
