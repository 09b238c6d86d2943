"""distribution-spec v1.1.0: pushing manifests, referrers, and deleting."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandboxd.registry_server.conftest import (
    OCI_INDEX,
    OCI_MANIFEST,
    Wire,
    described,
    digest_of,
    image,
)

pytestmark = pytest.mark.needs_userns


def test_a_manifest_is_kept_byte_for_byte(shared: Wire, repository: str) -> None:
    raw = json.dumps(image(shared, repository), indent=7).encode() + b"\n\n"
    path = f"/v2/{repository}/manifests/v1"
    pushed = shared("PUT", path, raw, {"Content-Type": OCI_MANIFEST})
    assert (pushed.status, pushed.headers["docker-content-digest"]) == (201, digest_of(raw))
    assert pushed.headers["location"] == f"/v2/{repository}/manifests/{digest_of(raw)}"
    assert shared("GET", path).body == raw


def test_a_tag_moves(shared: Wire, repository: str) -> None:
    first = shared.push_image(repository, "v1")
    second = shared.push_image(repository, "v1", layer=b"another layer")
    found = shared("HEAD", f"/v2/{repository}/manifests/v1").headers["docker-content-digest"]
    assert found == second != first
    assert shared("HEAD", f"/v2/{repository}/manifests/{first}").status == 200


def test_by_digest_with_tags(shared: Wire, repository: str) -> None:
    document = image(shared, repository)
    pushed = shared.push_manifest(repository, "{digest}?tag=1.2&tag=1&tag=latest", document)
    assert (pushed.status, pushed.headers["oci-tag"]) == (201, "1.2, 1, latest")
    assert shared("GET", f"/v2/{repository}/tags/list").json["tags"] == ["1", "1.2", "latest"]
    assert shared.push_manifest(repository, "{digest}?tag=../x", document).code == "TAG_INVALID"


def test_a_manifest_under_another_ones_digest(shared: Wire, repository: str) -> None:
    refused = shared.push_manifest(repository, digest_of(b"x"), image(shared, repository))
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("part", ["config", "layers"])
def test_a_blob_that_is_missing(shared: Wire, repository: str, part: str) -> None:
    missing = described(b"never pushed")
    document = image(shared, repository) | {part: [missing] if part == "layers" else missing}
    refused = shared.push_manifest(repository, "v1", document)
    assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert shared("GET", f"/v2/{repository}/manifests/v1").status == 404


def test_a_layer_elsewhere_need_not_be_here(shared: Wire, repository: str) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    layer = described(b"never pushed", kind) | {"urls": ["https://example.invalid/layer"]}
    document = image(shared, repository) | {"layers": [layer]}
    assert shared.push_manifest(repository, "v1", document).status == 201


def test_a_size_that_is_not_the_blobs(shared: Wire, repository: str) -> None:
    document = image(shared, repository)
    document["layers"][0]["size"] += 1
    assert shared.push_manifest(repository, "v1", document).code == "MANIFEST_INVALID"


def test_an_index(shared: Wire, repository: str) -> None:
    child = image(shared, repository)
    raw = json.dumps(child).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [described(raw, OCI_MANIFEST)],
    }
    refused = shared.push_manifest(repository, "v1", index)
    assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert shared.push_manifest(repository, "{digest}", child).status == 201
    pushed = shared.push_manifest(repository, "v1", index)
    assert pushed.status == 201
    deleted = pushed.headers["docker-content-digest"]
    assert shared("DELETE", f"/v2/{repository}/manifests/{deleted}").status == 202
    assert shared("GET", f"/v2/{repository}/manifests/{digest_of(raw)}").status == 200


DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        ("", OCI_MANIFEST),
        ("not json", OCI_MANIFEST),
        ("[]", OCI_MANIFEST),
        ("null", OCI_MANIFEST),
        (DEEP, OCI_MANIFEST),
        ('{"schemaVersion":1,"name":"a","fsLayers":[]}', OCI_MANIFEST),
        ('{"schemaVersion":2}', OCI_MANIFEST),
        ('{"schemaVersion":2,"config":[],"layers":7}', OCI_MANIFEST),
        ('{"schemaVersion":2,"config":{"digest":"../x","size":1},"layers":[]}', OCI_MANIFEST),
        ('{"schemaVersion":2,"manifests":[],"layers":[]}', OCI_INDEX),
        ('{"schemaVersion":2,"manifests":[]}', OCI_MANIFEST),
        ('{"schemaVersion":2,"mediaType":"x/y","manifests":[]}', "x/y"),
        (f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}', OCI_MANIFEST),
        (f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"subject":7}}', OCI_INDEX),
        (
            f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"annotations":[1]}}',
            OCI_INDEX,
        ),
    ],
)
def test_manifests_that_are_none(
    shared: Wire, repository: str, content: str, media_type: str
) -> None:
    path = f"/v2/{repository}/manifests/v1"
    refused = shared("PUT", path, content.encode(), {"Content-Type": media_type})
    assert (refused.status, refused.code) == (400, "MANIFEST_INVALID")


def test_a_giant_manifest_is_refused_by_its_length_or_when_it_gets_there(
    shared: Wire, repository: str
) -> None:
    path = f"/v2/{repository}/manifests/v1"
    for body in (b" " * (4 << 20) + b"{}", iter([b" " * (1 << 20)] * 5)):
        refused = shared("PUT", path, body, {"Content-Type": OCI_MANIFEST})
        assert (refused.status, refused.code) == (413, "MANIFEST_INVALID")


def referrer(wire: Wire, repository: str, subject: str, **more: Any) -> dict[str, Any]:
    """Push an artifact about `subject`; the descriptor that the list of referrers should have."""
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7682}
    document = image(wire, repository, subject=about, **more)
    pushed = wire.push_manifest(repository, "{digest}", document)
    assert (pushed.status, pushed.headers["oci-subject"]) == (201, subject)
    raw = json.dumps(document).encode()
    kind = more.get("artifactType") or document["config"]["mediaType"]
    expected = described(raw, OCI_MANIFEST) | {"artifactType": kind}
    return expected | ({"annotations": more["annotations"]} if "annotations" in more else {})


def test_referrers(shared: Wire, repository: str) -> None:
    # Before the manifest that they are about is there.
    subject = digest_of(json.dumps(image(shared, repository)).encode())
    path = f"/v2/{repository}/referrers/{subject}"
    empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert shared("GET", path).json == empty
    sbom = referrer(
        shared, repository, subject, artifactType="application/x.sbom", annotations={"a": "b"}
    )
    plain = referrer(shared, repository, subject)
    listed = shared("GET", path)
    assert listed.headers["content-type"] == OCI_INDEX
    assert "oci-filters-applied" not in listed.headers
    assert listed.json["manifests"] == sorted([sbom, plain], key=lambda each: str(each["digest"]))
    shared.push_image(repository, "v1")
    only = shared("GET", f"{path}?artifactType=application/x.sbom")
    assert only.headers["oci-filters-applied"] == "artifactType"
    assert only.json["manifests"] == [sbom]
    assert shared("GET", f"{path}?artifactType=no").json["manifests"] == []
    assert shared("DELETE", f"/v2/{repository}/manifests/{sbom['digest']}").status == 202
    assert shared("GET", path).json["manifests"] == [plain]


def test_an_index_as_a_referrer(shared: Wire, repository: str) -> None:
    subject = shared.push_image(repository, "v1")
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7682}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": about}
    assert shared.push_manifest(repository, "{digest}", index).status == 201
    (found,) = shared("GET", f"/v2/{repository}/referrers/{subject}").json["manifests"]
    assert found["mediaType"] == OCI_INDEX
    assert "artifactType" not in found


def test_the_referrers_tag_of_older_clients_is_an_ordinary_tag(
    shared: Wire, repository: str
) -> None:
    subject = shared.push_image(repository, "v1")
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    tag = subject.replace(":", "-")
    assert shared.push_manifest(repository, tag, index).status == 201
    assert shared("GET", f"/v2/{repository}/manifests/{tag}").json == index
    assert shared("GET", f"/v2/{repository}/referrers/{subject}").json["manifests"] == []


def test_many_referrers_come_in_pages(wire: Wire) -> None:
    subject = wire.push_image("pages", "v1")
    for number in range(5):
        notes = {f"{number}": "x" * 900_000}
        referrer(wire, "pages", subject, artifactType="application/x", annotations=notes)
    found, path = [], f"/v2/pages/referrers/{subject}?artifactType=application/x"
    while path:
        answer = wire("GET", path)
        assert len(answer.body) < 4 << 20
        found += answer.json["manifests"]
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert len({each["digest"] for each in found}) == len(found) == 5


def test_referrers_of_no_digest(shared: Wire, repository: str) -> None:
    refused = shared("GET", f"/v2/{repository}/referrers/latest")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


def test_deleting_a_tag_leaves_the_manifest(shared: Wire, repository: str) -> None:
    digest = shared.push_image(repository, "v1")
    assert shared("DELETE", f"/v2/{repository}/manifests/v1").status == 202
    missing = shared("DELETE", f"/v2/{repository}/manifests/v1")
    assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")
    assert shared("GET", f"/v2/{repository}/manifests/{digest}").status == 200


def test_deleting_a_manifest_takes_its_tags_and_what_only_it_had(
    shared: Wire, repository: str
) -> None:
    kept = shared.push_image(repository, "kept", layer=b"common")
    digest = shared.push_image(repository, "v1", layer=b"its own")
    assert shared("DELETE", f"/v2/{repository}/manifests/{digest}").status == 202
    for which in (digest, "v1"):
        assert shared("GET", f"/v2/{repository}/manifests/{which}").status == 404
    assert shared("GET", f"/v2/{repository}/manifests/{kept}").status == 200
    assert shared("HEAD", f"/v2/{repository}/blobs/{digest_of(b'common')}").status == 200
    assert shared("HEAD", f"/v2/{repository}/blobs/{digest_of(b'its own')}").status == 404
    assert shared("DELETE", f"/v2/{repository}/manifests/{digest}").code == "MANIFEST_UNKNOWN"


def test_everything_is_there_after_a_restart(wire: Wire, registry: Any) -> None:
    digest = wire.push_image("some/image", "v1")
    registry.stop()
    registry.start()
    again = Wire(registry.address)
    assert again("GET", "/v2/some/image/manifests/v1").headers["docker-content-digest"] == digest
    assert again("GET", f"/v2/some/image/blobs/{digest_of(b'a layer')}").body == b"a layer"
