"""Archives made to order, with the standard library's writer and by hand where it will not lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandboxd.images import Images
from sandboxd.linux import idmap
from sandboxd.store import Store

MakeTar = Callable[..., bytes]


def make_tar(*members: dict[str, Any], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of members such as {"name": "a", "data": b"x", "mode": 0o644, "pax": {…}}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for member in members:
            fields = dict(member)
            data, pax = fields.pop("data", b""), fields.pop("pax", {})
            info = tarfile.TarInfo(fields.pop("name"))
            info.size, info.pax_headers = len(data), pax
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def tar() -> MakeTar:
    return make_tar


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def saved() -> Callable[..., dict[str, bytes]]:
    """The parts of a `docker save` archive by name, ready to be tampered with."""

    def make(*layers: bytes, tags: tuple[str, ...] = ("app:1",), **config: Any) -> dict[str, bytes]:
        document = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/sh"], **config},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        text = json.dumps(document).encode()
        config_name = f"{digest(text).removeprefix('sha256:')}.json"
        parts = {f"layer{number}/layer.tar": layer for number, layer in enumerate(layers)}
        manifest = [{"Config": config_name, "RepoTags": list(tags) or None, "Layers": list(parts)}]
        return {**parts, config_name: text, "manifest.json": json.dumps(manifest).encode()}

    return make


@pytest.fixture
def layout() -> Callable[..., dict[str, bytes]]:
    """The parts of an OCI image layout by name."""

    def make(
        *layers: bytes, name: str = "example.test/app:2", platform: dict[str, str] | None = None
    ) -> dict[str, bytes]:
        blobs: dict[str, bytes] = {}

        def add(data: bytes, media_type: str) -> dict[str, Any]:
            blobs[f"blobs/sha256/{digest(data).removeprefix('sha256:')}"] = data
            return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

        prefix = "application/vnd.oci.image"
        config = {"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}
        manifest = {
            "schemaVersion": 2,
            "config": add(json.dumps(config).encode(), f"{prefix}.config.v1+json"),
            "layers": [add(layer, f"{prefix}.layer.v1.tar") for layer in layers],
        }
        entry = add(json.dumps(manifest).encode(), f"{prefix}.manifest.v1+json")
        if name:
            entry["annotations"] = {"io.containerd.image.name": name}
        if platform:
            entry["platform"] = platform
        index = {"schemaVersion": 2, "manifests": [entry]}
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **blobs,
        }

    return make


@pytest.fixture
def archive() -> Callable[[dict[str, bytes]], io.BytesIO]:
    """The parts as one tar stream."""

    def make(parts: dict[str, bytes]) -> io.BytesIO:
        return io.BytesIO(make_tar(*({"name": name, "data": data} for name, data in parts.items())))

    return make


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., AbstractContextManager[tuple[Store, Images]]]:
    """Opens a store and its images; call it inside the namespace. The second time is a restart."""

    @contextmanager
    def open_images(**options: Any) -> Iterator[tuple[Store, Images]]:
        ids = idmap.choose()
        store = Store(tmp_path / "root", ids)
        images = Images(store, ids, **options)
        yield store, images
        images.close()
        store.close()

    return open_images


@pytest.fixture
def nothing_left() -> Callable[[Store, Images], bool]:
    """Whether there is no image but `host`, and no file of another one."""

    def look(store: Store, images: Images) -> bool:
        only_host = [image.is_host for image in images.list()] == [True]
        places = ("layers/sha256", "blobs/sha256", "staging")
        return only_host and not any(os.listdir(store.root / place) for place in places)

    return look
