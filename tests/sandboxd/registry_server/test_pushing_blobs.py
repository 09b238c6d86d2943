"""distribution-spec v1.1.0, "Pushing blobs": each way of it, and each way to go wrong."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.sandboxd.registry_server.conftest import Wire, digest_of

if TYPE_CHECKING:
    from tests.conftest import Registry

pytestmark = pytest.mark.needs_userns

DATA = bytes(range(256)) * 512
DIGEST = digest_of(DATA)


def pulled(wire: Wire, repository: str, digest: str = DIGEST) -> bytes:
    answer = wire("GET", f"/v2/{repository}/blobs/{digest}")
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == digest
    return answer.body


def test_post_then_put(shared: Wire, repository: str) -> None:
    done = shared("PUT", f"{shared.upload(repository)}?digest={DIGEST}", DATA)
    assert (done.status, done.headers["location"]) == (201, f"/v2/{repository}/blobs/{DIGEST}")
    assert pulled(shared, repository) == DATA


def test_single_post(shared: Wire, repository: str) -> None:
    done = shared("POST", f"/v2/{repository}/blobs/uploads/?digest={DIGEST}", DATA)
    assert (done.status, done.headers["location"]) == (201, f"/v2/{repository}/blobs/{DIGEST}")
    assert pulled(shared, repository) == DATA


def test_an_empty_blob(shared: Wire, repository: str) -> None:
    digest = digest_of(b"")
    done = shared("PUT", f"{shared.upload(repository)}?digest={digest}", b"")
    assert done.status == 201
    assert pulled(shared, repository, digest) == b""


def test_in_chunks(shared: Wire, repository: str) -> None:
    place = shared.upload(repository)
    for first in range(0, len(DATA), 50_000):
        chunk = DATA[first : first + 50_000]
        last = first + len(chunk) - 1
        answer = shared("PATCH", place, chunk, {"Content-Range": f"{first}-{last}"})
        assert (answer.status, answer.headers["range"]) == (202, f"0-{last}")
        place = answer.headers["location"]
    assert shared("PUT", f"{place}?digest={DIGEST}").status == 201
    assert pulled(shared, repository) == DATA


def test_the_last_chunk_may_come_with_the_closing_put(shared: Wire, repository: str) -> None:
    place = shared.upload(repository)
    shared("PATCH", place, DATA[:1000], {"Content-Range": "0-999"})
    rest = {"Content-Range": f"1000-{len(DATA) - 1}"}
    assert shared("PUT", f"{place}?digest={DIGEST}", DATA[1000:], rest).status == 201
    assert pulled(shared, repository) == DATA


def test_a_stream_without_ranges_as_dockers_client_sends_it(shared: Wire, repository: str) -> None:
    place = shared.upload(repository)
    body = iter([DATA[:70_000], DATA[70_000:]])
    answer = shared("PATCH", place, body)
    assert (answer.status, answer.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    assert shared("PUT", f"{place}?digest={DIGEST}").status == 201
    assert pulled(shared, repository) == DATA


@pytest.mark.parametrize("place_of_chunk", ["5-9", "0-4", "11-12"])
def test_a_chunk_out_of_order_is_refused_and_the_next_right_one_is_taken(
    shared: Wire, repository: str, place_of_chunk: str
) -> None:
    place = shared.upload(repository)
    shared("PATCH", place, b"0123456789", {"Content-Range": "0-9"})
    first, _, last = place_of_chunk.partition("-")
    body = b"x" * (int(last) - int(first) + 1)
    refused = shared("PATCH", place, body, {"Content-Range": place_of_chunk})
    assert (refused.status, refused.code) == (416, "BLOB_UPLOAD_INVALID")
    status = shared("GET", refused.headers["location"])
    assert (status.status, status.headers["range"], status.body) == (204, "0-9", b"")
    assert shared("PATCH", place, b"ab", {"Content-Range": "10-11"}).status == 202
    digest = digest_of(b"0123456789ab")
    assert shared("PUT", f"{place}?digest={digest}").status == 201


@pytest.mark.parametrize("header", ["0-3", "4-0", "bytes 0-99999", "x", "0-", "-5", "9" * 40])
def test_a_content_range_that_cannot_be(shared: Wire, repository: str, header: str) -> None:
    place = shared.upload(repository)
    refused = shared("PATCH", place, b"abcde", {"Content-Range": header})
    assert refused.status in (400, 416)
    assert shared("GET", place).headers["range"] == "0-0"
    assert shared("PUT", f"{place}?digest={DIGEST}", DATA).status == 201


def test_what_arrived_before_a_connection_broke_is_gone_on_from(
    shared: Wire, repository: str
) -> None:
    data = DATA * 24
    place = shared.upload(repository)
    host, _, port = shared.address.partition(":")
    with socket.create_connection((host, int(port))) as half:
        head = f"PATCH {place} HTTP/1.1\r\nHost: {shared.address}\r\n"
        half.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[: 5 << 19])
        while held_of(shared, place) < 2 << 20:
            time.sleep(0.01)
        busy = shared("PATCH", place, b"x")
        assert (busy.status, busy.code) == (400, "BLOB_UPLOAD_INVALID")
    while shared("PATCH", place, b"", {"Content-Range": "0-0"}).status == 400:
        time.sleep(0.01)
    held = held_of(shared, place)
    assert 2 << 20 <= held <= 5 << 19
    rest = {"Content-Range": f"{held}-{len(data) - 1}"}
    assert shared("PATCH", place, data[held:], rest).status == 202
    assert shared("PUT", f"{place}?digest={digest_of(data)}").status == 201
    assert pulled(shared, repository, digest_of(data)) == data


def held_of(wire: Wire, place: str) -> int:
    """How many bytes of an upload the registry has."""
    return int(wire("GET", place).headers["range"].partition("-")[2]) + 1


@pytest.mark.parametrize("way", ["put", "post"])
def test_a_wrong_digest_leaves_nothing(shared: Wire, repository: str, way: str) -> None:
    wrong = digest_of(b"something else")
    if way == "put":
        place = shared.upload(repository)
        refused = shared("PUT", f"{place}?digest={wrong}", DATA)
        assert shared("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
    else:
        refused = shared("POST", f"/v2/{repository}/blobs/uploads/?digest={wrong}", DATA)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    for digest in (wrong, DIGEST):
        assert shared("HEAD", f"/v2/{repository}/blobs/{digest}").status == 404


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:abc", "sha512:" + "a" * 128, "sha256:" + "A" * 64, "../../etc/passwd", "md5:x"],
)
def test_digests_that_are_none(shared: Wire, repository: str, digest: str) -> None:
    refused = shared("PUT", f"{shared.upload(repository)}?digest={digest}", DATA)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    refused = shared("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", DATA)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


def test_a_closing_put_without_a_digest(shared: Wire, repository: str) -> None:
    assert shared("PUT", shared.upload(repository), DATA).code == "DIGEST_INVALID"


def test_an_upload_can_be_given_up(shared: Wire, repository: str) -> None:
    place = shared.upload(repository)
    shared("PATCH", place, b"abc")
    assert shared("DELETE", place).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert shared(method, place).code == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_belongs_to_its_repository(shared: Wire, repository: str) -> None:
    place = shared.upload(repository)
    elsewhere = place.replace(repository, f"{repository}/other")
    assert shared("PATCH", elsewhere, b"abc").code == "BLOB_UPLOAD_UNKNOWN"


def test_a_blob_is_mounted_from_another_repository(shared: Wire, repository: str) -> None:
    shared.push_blob(f"{repository}/from", DATA)
    target = f"/v2/{repository}/blobs/uploads/?mount={DIGEST}&from={repository}/from"
    mounted = shared("POST", target)
    assert (mounted.status, mounted.headers["location"]) == (
        201,
        f"/v2/{repository}/blobs/{DIGEST}",
    )
    assert pulled(shared, repository) == DATA


def test_a_blob_that_cannot_be_mounted_is_to_be_uploaded(shared: Wire, repository: str) -> None:
    target = f"/v2/{repository}/blobs/uploads/?mount={digest_of(b'nowhere')}&from={repository}/no"
    answer = shared("POST", target)
    assert answer.status == 202
    digest = digest_of(b"nowhere")
    assert shared("PUT", f"{answer.headers['location']}?digest={digest}", b"nowhere").status == 201


def test_a_mount_without_from_finds_it_anywhere(shared: Wire, repository: str) -> None:
    digest = shared.push_blob(f"{repository}/from", b"to be found")
    assert shared("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}").status == 201


def test_deleting_a_blob_deletes_it_from_its_repository_only(shared: Wire, repository: str) -> None:
    for name in (repository, f"{repository}/other"):
        shared.push_blob(name, DATA)
    assert shared("DELETE", f"/v2/{repository}/blobs/{DIGEST}").status == 202
    assert shared("DELETE", f"/v2/{repository}/blobs/{DIGEST}").code == "BLOB_UNKNOWN"
    assert shared("GET", f"/v2/{repository}/blobs/{DIGEST}").code == "BLOB_UNKNOWN"
    assert pulled(shared, f"{repository}/other") == DATA


def test_uploads_do_not_survive_the_process_and_leave_nothing(
    wire: Wire, registry: Registry
) -> None:
    place = wire.upload("some/repository")
    wire("PATCH", place, DATA)
    assert registry.stop() == 0
    assert list((registry.root / "staging").iterdir()) == []
    registry.start()
    assert Wire(registry.address)("PATCH", place, b"abc").code == "BLOB_UPLOAD_UNKNOWN"
