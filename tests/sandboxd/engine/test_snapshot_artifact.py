"""What a registry says about a snapshot is read with suspicion; what a tree holds is kept."""

from __future__ import annotations

import json
import os
import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.engine.snapshot_artifact import ARTIFACT, About, Part, check, manifest, tag_of
from sandboxd.engine.snapshot_trees import pack, unpacked
from sandboxd.errors import BadRequest, SandboxError
from sandboxd.images.registry.manifests import Descriptor, Manifest
from sandboxd.linux import idmap
from sandboxd.linux.holes import holes
from sandboxd.store import trees

KEY, DIGEST = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PART = Part(DIGEST, DIGEST, 7, 2, {"a": [(0, 4096)], "\udcff": [(4096, 1)]}, ("s",))
ABOUT = About(KEY, {"Image": "x"}, 12.5, False, (PART,))


def test_the_config_comes_back_as_it_was() -> None:
    assert About.parse(ABOUT.to_json()) == ABOUT


@pytest.mark.parametrize(
    "change",
    [
        {"Key": "../../etc"},
        {"Key": None},
        {"Spec": []},
        {"Created": "now"},
        {"Trees": []},
        {"Trees": None},
        {"Trees": [7]},
        {"Trees": [{}]},
        {"Trees": "abc"},
    ],
)
def test_configs_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        About.parse(json.dumps(json.loads(ABOUT.to_json()) | change).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"Digest": "sha256:x"},
        {"DiffID": None},
        {"Size": -1},
        {"Size": 1.5},
        {"Size": True},
        {"Files": 1 << 60},
        {"Holes": [1]},
        {"Holes": {"a": [[0]]}},
        {"Holes": {"a": [[0, -1]]}},
        {"Holes": {"a": [["0", 1]]}},
        {"LeftOut": [1]},
    ],
)
def test_trees_that_are_none(change: dict[str, Any]) -> None:
    document = json.loads(ABOUT.to_json())
    document["Trees"][0] |= change
    with pytest.raises(BadRequest):
        About.parse(json.dumps(document).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["Key", "Trees", "Holes", "Digest", "x"]), inner)
        ),
        max_leaves=10,
    )
)
def test_whatever_a_config_holds_it_is_read_or_refused(document: Any) -> None:
    raw = json.dumps(document).encode()
    try:
        About.parse(raw)
    except SandboxError:
        return
    pytest.fail("a random document was taken for a snapshot")


def test_an_image_is_told_from_a_snapshot() -> None:
    config, layer = Descriptor("x/config", DIGEST, 1), Descriptor("x/layer", DIGEST, 1)
    raw = manifest(ABOUT, config, [layer])
    check(Manifest.parse(raw), "here")
    document = json.loads(raw)
    assert document.pop("artifactType") == ARTIFACT
    with pytest.raises(BadRequest, match="here is no snapshot"):
        check(Manifest.parse(json.dumps(document).encode()), "here")


def test_the_tag_is_the_keys_digits() -> None:
    assert tag_of(KEY, squashed=False) == "a" * 64
    assert tag_of(KEY, squashed=True) == "a" * 64 + "-single"
    with pytest.raises(BadRequest):
        tag_of("../x", squashed=False)


def measured(tree: Path) -> str:
    fd = trees.open_tree(tree)
    try:
        return trees.measure(fd).digest
    finally:
        os.close(fd)


def travelled(tree: Path, tmp_path: Path, ids: idmap.IdMap, **changes: Any) -> Path:
    """Where the tree is after it was packed and unpacked."""
    packed = pack(tree, measured(tree), ids, tmp_path / "blob")
    assert packed.blob.size == packed.path.stat().st_size
    staged = tmp_path / "staged"
    staged.mkdir()
    stream = BytesIO(packed.path.read_bytes())
    return unpacked(stream, packed.part._replace(**changes), ids, staged)[0]


@pytest.mark.outer
def test_a_tree_travels_with_its_whiteouts_marks_attributes_and_holes(
    tmp_path: Path, ids: idmap.IdMap
) -> None:
    tree = tmp_path / "tree"
    (tree / "opaque" / "deep").mkdir(parents=True)
    tree.chmod(0o1777)
    os.mknod(tree / "gone", 0o020000, os.makedev(0, 0))
    os.setxattr(tree / "opaque", "user.overlay.opaque", b"y")
    (tree / "file").write_bytes(b"content")
    os.setxattr(tree / "file", "user.note", b"\0binary")
    (tree / "link").hardlink_to(tree / "file")
    (tree / "name\udcff").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe", 0o640)
    with open(tree / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.truncate(3 << 20)
    arrived = travelled(tree, tmp_path, ids)
    assert measured(arrived) == measured(tree)
    for place in (tree, arrived):
        with open(place / "sparse", "rb") as file:
            assert [begin for begin, _ in holes(file.fileno())] == [0, (1 << 20) + 4096]
    assert (arrived / "file").samefile(arrived / "link")


@pytest.mark.outer
def test_holes_where_there_is_data_are_noticed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 8192)
    with pytest.raises(BadRequest, match="its content is sha256:"):
        travelled(tree, tmp_path, idmap.choose(), holes={"file": [(0, 4096)]})


@pytest.mark.outer
def test_a_tree_that_is_not_the_promised_one(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(BadRequest, match="its archive is sha256:"):
        travelled(tree, tmp_path, idmap.choose(), diff_id=DIGEST)


@pytest.mark.outer
def test_sockets_stay_behind(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.chdir(tree)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    (tree / "file").touch()
    arrived = travelled(tree, tmp_path, idmap.choose())
    assert os.listdir(arrived) == ["file"]


@pytest.mark.outer
def test_a_name_that_would_be_a_whiteout_cannot_travel(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".wh.file").touch()
    with pytest.raises(BadRequest, match="cannot travel"):
        pack(tree, DIGEST, idmap.choose(), tmp_path / "blob")
