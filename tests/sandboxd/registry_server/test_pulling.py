"""distribution-spec v1.1.0, "Pulling": manifests, blobs, and parts of blobs (RFC 9110, 14)."""

from __future__ import annotations

import pytest

from tests.sandboxd.registry_server.conftest import OCI_MANIFEST, Wire, digest_of

pytestmark = pytest.mark.needs_userns

DATA = bytes(range(250)) * 100
DIGEST = digest_of(DATA)


def test_the_base(shared: Wire) -> None:
    for path in ("/v2/", "/v2"):
        answer = shared("GET", path)
        assert (answer.status, answer.json) == (200, {})
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_a_manifest_by_tag_and_by_digest(shared: Wire, repository: str) -> None:
    digest = shared.push_image(repository, "v1")
    for which in ("v1", digest, digest.replace(":", "%3A")):
        answer = shared("GET", f"/v2/{repository}/manifests/{which}")
        assert answer.status == 200
        assert answer.headers["content-type"] == OCI_MANIFEST
        assert answer.headers["docker-content-digest"] == digest == digest_of(answer.body)
        head = shared("HEAD", f"/v2/{repository}/manifests/{which}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.body))
        assert head.headers["docker-content-digest"] == digest


def test_what_is_not_there(shared: Wire, repository: str) -> None:
    shared.push_image(repository, "v1")
    for which in ("v2", digest_of(b"other")):
        missing = shared("GET", f"/v2/{repository}/manifests/{which}")
        assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")
        assert shared("HEAD", f"/v2/{repository}/manifests/{which}").status == 404
    missing = shared("GET", f"/v2/{repository}/blobs/{digest_of(b'other')}")
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")
    head = shared("HEAD", f"/v2/{repository}/blobs/{digest_of(b'other')}")
    assert (head.status, head.body) == (404, b"")


def test_a_blob_of_another_repository_is_not_there(shared: Wire, repository: str) -> None:
    shared.push_blob(f"{repository}/other", DATA)
    assert shared("GET", f"/v2/{repository}/blobs/{DIGEST}").code == "BLOB_UNKNOWN"


def test_a_blobs_head(shared: Wire, repository: str) -> None:
    shared.push_blob(repository, DATA)
    head = shared("HEAD", f"/v2/{repository}/blobs/{DIGEST}")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    assert head.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-10", len(DATA) - 10, len(DATA)),
        ("bytes=24999-99999999", 24999, len(DATA)),
        ("bytes=-99999999", 0, len(DATA)),
        ("bytes=7-7", 7, 8),
    ],
)
def test_a_part_of_a_blob(shared: Wire, repository: str, header: str, start: int, end: int) -> None:
    shared.push_blob(repository, DATA)
    answer = shared("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"Range": header})
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=25000-", "bytes=999999-9999999", "bytes=-0"])
def test_a_part_that_lies_outside(shared: Wire, repository: str, header: str) -> None:
    shared.push_blob(repository, DATA)
    answer = shared("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"Range": header})
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,3-4",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(2000)),
        "bytes=9-3",
        "bytes=-",
        "lines=1-2",
        "bytes=0-" + "9" * 400,
        "bytes=a-b",
    ],
)
def test_ranges_that_are_not_served_give_the_whole(
    shared: Wire, repository: str, header: str
) -> None:
    shared.push_blob(repository, DATA)
    answer = shared("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"Range": header})
    # aiohttp refuses a header line of more than 8190 bytes.
    assert answer.status == 400 or (answer.status, answer.body) == (200, DATA)


def test_tags_in_pages(shared: Wire, repository: str) -> None:
    document_of = ["b", "a", "C", "latest", "1.0"]
    for tag in document_of:
        shared.push_image(repository, tag)
    listed = shared("GET", f"/v2/{repository}/tags/list")
    assert listed.json == {"name": repository, "tags": sorted(document_of)}
    pages, path = [], f"/v2/{repository}/tags/list?n=2"
    while path:
        answer = shared("GET", path)
        pages.append(answer.json["tags"])
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
        assert not link or link.endswith('; rel="next"')
    assert pages == [["1.0", "C"], ["a", "b"], ["latest"]]
    assert shared("GET", f"/v2/{repository}/tags/list?last=a").json["tags"] == ["b", "latest"]
    nothing = shared("GET", f"/v2/{repository}/tags/list?n=0")
    assert (nothing.json["tags"], "link" in nothing.headers) == ([], False)


@pytest.mark.parametrize("count", ["-1", "x", "1e3", "9" * 30, "", "٣"])
def test_a_count_that_is_no_number(shared: Wire, repository: str, count: str) -> None:
    from urllib.parse import quote

    shared.push_image(repository, "v1")
    answer = shared("GET", f"/v2/{repository}/tags/list?n={quote(count)}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


def test_tags_of_no_repository(shared: Wire, repository: str) -> None:
    answer = shared("GET", f"/v2/{repository}/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_a_repository_without_tags(shared: Wire, repository: str) -> None:
    shared.push_blob(repository, DATA)
    assert shared("GET", f"/v2/{repository}/tags/list").json["tags"] == []


def test_the_catalog(wire: Wire) -> None:
    for name in ("b/c", "a", "z"):
        wire.push_image(name, "v1")
    assert wire("GET", "/v2/_catalog").json == {"repositories": ["a", "b/c", "z"]}
    page = wire("GET", "/v2/_catalog?n=2")
    assert page.json == {"repositories": ["a", "b/c"]}
    assert page.headers["link"] == '</v2/_catalog?n=2&last=b%2Fc>; rel="next"'
    assert wire("GET", "/v2/_catalog?n=2&last=b%2Fc").json == {"repositories": ["z"]}
