"""Registry and service over one state: crashes, full disks, and both at work at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import connect
from sandboxd.linux import idmap, mount
from sandboxd.registry_server import Settings
from sandboxd.store import Store
from tests.sandboxd.registry_server.conftest import Wire, digest_of
from tests.sandboxd.registry_server.test_hostile import with_registry

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

pytestmark = pytest.mark.needs_userns


@pytest.mark.needs_busybox
def test_pushes_go_on_while_the_service_imports_and_prunes(
    own_service: Service, busybox_tar: Path
) -> None:
    from tests.conftest import Registry

    registry = Registry(own_service.root)
    registry.start()
    wire, pushed, failed = Wire(registry.address), {}, []

    def push(thread: int) -> None:
        try:
            for number in range(12):
                layer = os.urandom(1000)
                name = f"thread{thread}/n{number}"
                pushed[name] = wire.push_image(name, "v1", layer=layer), digest_of(layer)
        except BaseException as error:
            failed.append(error)

    pushers = [threading.Thread(target=push, args=(number,)) for number in range(3)]
    for pusher in pushers:
        pusher.start()
    with connect(own_service.host, autostart=False) as client:
        while any(pusher.is_alive() for pusher in pushers):
            client.image_import(busybox_tar, "busybox:latest")
            client.image_remove("busybox:latest", force=True)
            client.call("POST", "/images/prune")
    for pusher in pushers:
        pusher.join()
    assert failed == []
    assert len(pushed) == 36
    for name, (manifest, layer) in pushed.items():
        assert wire("GET", f"/v2/{name}/manifests/v1").headers["docker-content-digest"] == manifest
        assert digest_of(wire("GET", f"/v2/{name}/blobs/{layer}").body) == layer
    assert registry.stop() == 0, registry.log.read_text()
    assert "ERROR" not in registry.log.read_text()


def test_killed_in_the_middle_of_an_upload(registry: Registry, wire: Wire) -> None:
    kept = wire.push_image("kept", "v1")
    wire("PATCH", wire.upload("half"), b"x" * 100_000)
    assert registry.process is not None
    registry.process.send_signal(signal.SIGKILL)
    registry.process.wait()
    assert len(list((registry.root / "staging").iterdir())) == 1
    registry.start()
    again = Wire(registry.address)
    assert list((registry.root / "staging").iterdir()) == []
    assert again("GET", f"/v2/kept/manifests/{kept}").status == 200
    assert again("GET", "/v2/_catalog").json == {"repositories": ["kept"]}


def test_a_full_disk_refuses_the_upload_and_keeps_the_rest(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    def body(wire: Wire, store: Store) -> object:
        kept = wire.push_image("kept", "v1")
        big = os.urandom(6 << 20)
        refused = [
            wire("POST", f"/v2/big/blobs/uploads/?digest={digest_of(big)}", big),
            wire("PATCH", wire.upload("big"), big),
        ]
        left = list((store.root / "staging").iterdir())
        after = wire.push_image("after", "v1", layer=os.urandom(1 << 20))
        there = [
            wire("GET", f"/v2/{name}/manifests/{digest}").status
            for name, digest in (("kept", kept), ("after", after))
        ]
        return [(each.status, each.code) for each in refused], left, there

    def scenario() -> Any:
        idmap.enter_outer_namespace(idmap.choose())
        (tmp_path / "state").mkdir(mode=0o700)
        mount.mount("tmpfs", str(tmp_path / "state"), "tmpfs", options="size=5m,mode=0700")
        return with_registry(tmp_path, Settings(), body, enter=False)

    refused, left, there = in_child(scenario)
    assert refused == [(507, "UNKNOWN")] * 2
    assert left == []
    assert there == [200, 200]


def test_an_image_on_this_machines_root_is_not_served(
    tmp_path: Path, in_child: Callable[[Callable[[], Any]], Any]
) -> None:
    def body(wire: Wire, store: Store) -> object:
        config = b'{"rootfs":{"type":"layers","diff_ids":[]}}'
        store.hold_pin(digest_of(config))
        id = store.blobs.put(BytesIO(config)).digest
        row = {"layers": [], "stack": [], "blobs": [id], "created": "", "size": 0, "digests": []}
        store.database.images.put(id, row)
        store.database.tags.put("mine:latest", {"image": id})
        store.database.tags.put("localhost:5000/mine:latest", {"image": id})
        answers = []
        for on_host in (False, True):
            store.database.images.put(id, {**row, "on_host": on_host})
            names = wire("GET", "/v2/_catalog").json["repositories"]
            answers.append((wire("GET", "/v2/mine/manifests/latest").status, names))
        return answers

    found = in_child(lambda: with_registry(tmp_path, Settings(), body))
    assert found == [(200, ["mine"]), (404, [])]
