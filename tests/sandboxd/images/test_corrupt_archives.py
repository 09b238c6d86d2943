"""Image archives that lie, in one place each: refused, and nothing of them is left."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256

import pytest

from sandboxd.errors import BadRequest, Forbidden
from sandboxd.images import Images
from sandboxd.store import Store

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]
Parts = dict[str, bytes]
MakeParts = Callable[..., Parts]
MakeArchive = Callable[[Parts], io.BytesIO]
OpenImages = Callable[..., AbstractContextManager[tuple[Store, Images]]]
NothingLeft = Callable[[Store, Images], bool]


def _tampered(parts: Parts, case: str, tar: MakeTar) -> Parts:
    manifest = json.loads(parts.get("manifest.json", b"[{}]"))
    index = json.loads(parts.get("index.json", b'{"manifests":[{}]}'))
    entry = index["manifests"][0]
    layer = next((name for name in parts if name.endswith("layer.tar")), "")
    blob = f"blobs/sha256/{entry.get('digest', '')[7:]}"
    match case:
        case "another layer":
            parts[layer] = tar({"name": "evil"})
        case "cut layer":
            parts[layer] = parts[layer][:700]
        case "trailing bytes":
            parts[layer] += b"more"
        case "missing layer":
            del parts[layer]
        case "one layer too many":
            manifest[0]["Layers"].append(layer)
        case "another config":
            parts[manifest[0]["Config"]] = b'{"rootfs":{"type":"layers","diff_ids":[]}}'
        case "config as a path":
            manifest[0]["Config"] = "../../../../etc/passwd"
        case "layer as a path":
            manifest[0]["Layers"] = ["/etc/passwd"]
        case "manifest is no list":
            manifest = {"Config": "x"}
        case "manifest of numbers":
            manifest = [1, 2]
        case "layers of numbers":
            manifest[0]["Layers"] = [1]
        case "bad tag":
            manifest[0]["RepoTags"] = ["BAD TAG"]
        case "the name host":
            manifest[0]["RepoTags"] = ["fine:1", "host:latest"]
        case "no manifest":
            del parts["manifest.json"]
        case "too deep":
            return {**parts, "manifest.json": b"[" * 200_000}
        case "too big":
            return {**parts, "manifest.json": b'["' + b"x" * (5 << 20) + b'"]'}
        case "no json":
            return {**parts, "manifest.json": b"\xff\xfe"}
        case "another manifest":
            parts[blob] = parts[blob].replace(b"{", b" {", 1)
        case "another size":
            entry["size"] += 1
        case "digest as a path":
            entry["digest"] = "sha256:../../../etc/passwd"
        case "index and manifest at once":
            index["layers"] = []
        case "an index that names itself":
            entry |= {"mediaType": "application/vnd.oci.image.index.v1+json"}
            index["manifests"] = [entry, entry]
        case "a manifest with manifests":
            document = {**json.loads(parts[blob]), "manifests": []}
            text = json.dumps(document).encode()
            entry |= {"digest": f"sha256:{sha256(text).hexdigest()}", "size": len(text)}
            parts[f"blobs/sha256/{entry['digest'][7:]}"] = text
        case _:
            raise AssertionError(case)
    if "manifest.json" in parts:
        parts["manifest.json"] = json.dumps(manifest).encode()
    if "index.json" in parts:
        parts["index.json"] = json.dumps(index).encode()
    return parts


_SAVED = [
    "another layer", "cut layer", "trailing bytes", "missing layer", "one layer too many",
    "another config", "config as a path", "layer as a path", "manifest is no list",
    "manifest of numbers", "layers of numbers", "bad tag", "the name host", "no manifest",
    "too deep", "too big", "no json",
]  # fmt: skip
_LAYOUT = [
    "another manifest", "another size", "digest as a path", "index and manifest at once",
    "an index that names itself", "a manifest with manifests",
]  # fmt: skip


@pytest.mark.parametrize("case", [*_SAVED, *_LAYOUT])
def test_a_corrupt_archive_leaves_nothing(
    tar: MakeTar,
    saved: MakeParts,
    layout: MakeParts,
    archive: MakeArchive,
    case: str,
    opened: OpenImages,
    nothing_left: NothingLeft,
) -> None:
    good = tar({"name": "first"})
    make = layout if case in _LAYOUT else saved
    parts = _tampered(make(tar({"name": "a", "data": b"1"}), good), case, tar)
    with opened() as (store, images):
        with pytest.raises((BadRequest, Forbidden)):
            images.load(archive(parts))
        assert nothing_left(store, images)
