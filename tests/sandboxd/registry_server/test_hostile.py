"""Requests that nobody means well: each is answered, and the registry goes on."""

from __future__ import annotations

import os
import socket
import string
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxd.linux import idmap
from sandboxd.registry_server import Settings, serve
from sandboxd.registry_server.faults import Fault
from sandboxd.registry_server.routes import parsed
from sandboxd.store import Store
from tests.sandboxd.registry_server.conftest import OCI_MANIFEST, Wire, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

pytestmark = pytest.mark.needs_userns

NAMES = [
    "..",
    "../../etc",
    "a/../b",
    "%2e%2e/%2e%2e",
    "a%2f..%2fb",
    "a//b",
    "/a",
    "a/",
    "A",
    "a%20b",
    "a%00b",
    "a%0ab",
    "-a",
    "a-",
    "_a",
    "a...b",
    "a___b",
    "%c3%a9",
    "%ff",
    "a" * 256,
    "a/" * 200 + "a",
    ".",
    "%",
    "a?b",
    "a;b",
    "a:b",
    "a@b",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(shared: Wire, name: str) -> None:
    for method, path in (
        ("GET", f"/v2/{name}/manifests/latest"),
        ("PUT", f"/v2/{name}/manifests/latest"),
        ("POST", f"/v2/{name}/blobs/uploads/"),
        ("GET", f"/v2/{name}/tags/list"),
        ("GET", f"/v2/{name}/blobs/{digest_of(b'')}"),
        ("POST", f"/v2/good/blobs/uploads/?mount={digest_of(b'')}&from={name}"),
    ):
        assert 400 <= shared(method, path).status < 500, (method, path)
    assert shared("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "which",
    [
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "/" * 64,
        "sha256:..%2f..%2f" + "a" * 58,
        "sha512:" + "a" * 128,
        "..",
        "%2e%2e",
        ".hidden",
        "-x",
        "a" * 129,
        "a%00",
        "a\\b",
    ],
)
def test_tags_and_digests_that_are_none(shared: Wire, which: str) -> None:
    for path in (f"/v2/good/manifests/{which}", f"/v2/good/blobs/{which}"):
        for method in ("GET", "DELETE"):
            assert shared(method, path).status in (400, 404), (method, path)
    assert shared("PUT", f"/v2/good/manifests/{which}", b"{}").status in (400, 404)


@pytest.mark.parametrize(
    "id",
    [
        "..",
        "%2e%2e",
        "x",
        "0" * 36,
        "../uploads",
        "a" * 900,
        "00000000-0000-0000-0000-00000000000G",
    ],
)
def test_upload_ids_that_are_none(shared: Wire, id: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert shared(method, f"/v2/good/blobs/uploads/{id}", b"").status in (400, 404)


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v2x", "//v2/", "/v2/good", "/v2/good/x/y", "/v2/" + "a" * 5000, "/v2/%"]
)
def test_paths_that_lead_nowhere(shared: Wire, path: str) -> None:
    assert shared("GET", path).status in (400, 404, 414)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "PUT", "FOO"])
def test_methods_that_are_not_defined(shared: Wire, method: str) -> None:
    answer = shared(method, "/v2/_catalog", b"")
    assert (answer.status, answer.headers.get("allow")) in ((405, "GET"), (400, None))
    assert "access-control-allow-origin" not in answer.headers


@given(st.text(max_size=60))
def test_whatever_a_path_says_a_name_is_a_name(text: str) -> None:
    for path in (f"/v2/{text}/manifests/{text}", f"/v2/{text}/blobs/{text}", text):
        with suppress(Fault):
            target = parsed(path)
            for part in (target.name, target.which):
                assert ".." not in part.split("/")
                assert not set(part) - _HARMLESS
                assert not part.startswith("/")


_HARMLESS = set(string.ascii_letters + string.digits + "._-/:")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_whatever_a_manifest_holds_it_is_answered(shared: Wire, data: bytes) -> None:
    answer = shared("PUT", "/v2/fuzz/manifests/v1", data, {"Content-Type": OCI_MANIFEST})
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_a_client_that_leaves_in_the_middle_of_a_pull(shared: Wire) -> None:
    digest = shared.push_blob("big", b"x" * (8 << 20))
    host, _, port = shared.address.partition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as half:
            head = f"GET /v2/big/blobs/{digest} HTTP/1.1\r\nHost: {shared.address}\r\n\r\n"
            half.sendall(head.encode())
            half.recv(1000)
    assert len(shared("GET", f"/v2/big/blobs/{digest}").body) == 8 << 20


def test_two_writers_of_one_blob(shared: Wire) -> None:
    data = b"both" * 1000
    places = [shared.upload("both") for _ in range(2)]
    for place in places:
        shared("PATCH", place, data)
    for place in places:
        assert shared("PUT", f"{place}?digest={digest_of(data)}").status == 201
    assert shared("GET", f"/v2/both/blobs/{digest_of(data)}").body == data


def with_registry(
    path: Path, settings_: Settings, body: Callable[[Wire, Store], Any], *, enter: bool = True
) -> Any:
    """Run `body` in a thread beside a registry in this process, in an outer namespace."""
    import asyncio

    ids = idmap.choose()
    if enter:
        idmap.enter_outer_namespace(ids)
    os.umask(0o077)
    store = Store(path / "state", ids)

    async def scenario() -> Any:
        stop = asyncio.Event()
        sock = socket.create_server(("127.0.0.1", 0))
        wire = Wire(f"127.0.0.1:{sock.getsockname()[1]}")
        served = asyncio.create_task(serve(store, ids, [sock], settings_, stop))
        try:
            return await asyncio.to_thread(body, wire, store)
        finally:
            stop.set()
            await served
            store.close()

    return asyncio.run(scenario())


def test_a_body_that_stands_still_is_given_up(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    def body(wire: Wire, store: Store) -> tuple[int, str]:
        place = wire.upload("slow")
        host, _, port = wire.address.partition(":")
        with socket.create_connection((host, int(port))) as half:
            head = f"PATCH {place} HTTP/1.1\r\nHost: {wire.address}\r\nContent-Length: 100\r\n\r\n"
            half.sendall(head.encode() + b"some of it")
            answer = half.recv(4096)
        return int(answer.split()[1]), wire("GET", place).headers["range"]

    found = in_child(lambda: with_registry(tmp_path, Settings(stall=0.25), body))
    assert found == (408, "0-9")


def test_a_blob_that_is_too_long_is_refused(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    def body(wire: Wire, store: Store) -> list[object]:
        data = b"x" * 1001
        answers = [
            wire("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", data),
            wire("PUT", f"{wire.upload('a')}?digest={digest_of(data)}", iter([data])),
        ]
        place = wire.upload("a")
        wire("PATCH", place, data[:900])
        answers.append(wire("PATCH", place, data[900:]))
        left = list((store.root / "staging").iterdir())
        return [[(each.status, each.code) for each in answers], left]

    refused, left = in_child(lambda: with_registry(tmp_path, Settings(blob_max=1000), body))
    assert refused == [(413, "SIZE_INVALID")] * 3
    assert left == []


def test_silent_uploads_expire_and_blobs_without_a_manifest_are_given_up(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    def body(wire: Wire, store: Store) -> object:
        from sandboxd.registry_server.repositories import Repositories
        from sandboxd.registry_server.uploads import Uploads

        uploads, repositories = Uploads(store, patience=0.0), Repositories(store)
        uploads.start("a").write(b"abc")
        busy = uploads.start("a")
        busy.begin()
        expired = uploads.drop_silent(), len(uploads)
        uploads.close()
        loose = wire.push_blob("a", b"loose")
        wire.push_image("a", "v1")
        repositories.forget_unnamed()
        before = repositories.has_blob("a", loose)
        count = repositories.forget_unnamed(grace=0.0)
        return expired, before, count, wire("GET", "/v2/a/manifests/v1").status

    found = in_child(lambda: with_registry(tmp_path, Settings(), body))
    assert found == ((1, 1), True, 1, 200)


def test_too_many_uploads_at_once(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandboxd.registry_server import uploads

    monkeypatch.setattr(uploads, "_ATONCE_MAX", 2)

    def body(wire: Wire, store: Store) -> object:
        places = [wire.upload("a") for _ in range(2)]
        refused = wire("POST", "/v2/a/blobs/uploads/")
        wire("DELETE", places[0])
        again = wire("POST", "/v2/a/blobs/uploads/").status
        return refused.status, refused.code, refused.headers["retry-after"], again

    found = in_child(lambda: with_registry(tmp_path, Settings(), body))
    assert found == (429, "TOOMANYREQUESTS", "60", 202)


def test_space_is_reclaimed_where_no_service_runs(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    from filelock import FileLock

    from sandboxd.registry_server.reclaiming import collect_if_alone

    def body(wire: Wire, store: Store) -> object:
        kept = wire.push_image("a", "kept")
        loose = wire.push_image("a", "loose", layer=b"loose")
        wire("DELETE", f"/v2/a/manifests/{loose}")
        with FileLock(store.root / "service.lock"):
            beside = collect_if_alone(store)
        alone = collect_if_alone(store)
        assert alone is not None
        return beside, set(alone.blobs) == {loose, digest_of(b"loose")}, kept in alone.blobs

    found = in_child(lambda: with_registry(tmp_path, Settings(), body))
    assert found == (None, True, False)
