"""Sparse members, as GNU tar itself writes them in each of its forms, and ones that lie."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images import recipe
from sandboxd.images.tar import TarReader
from sandboxd.images.unpack import unpack
from sandboxd.linux import idmap

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer, pytest.mark.needs_gnu_tar]

MakeTar = Callable[..., bytes]

_FORMS = {
    "old": ["--format=gnu"],
    "0.0": ["--format=pax", "--sparse-version=0.0"],
    "0.1": ["--format=pax", "--sparse-version=0.1"],
    "1.0": ["--format=pax", "--sparse-version=1.0"],
}


def _holey(path: Path, parts: int) -> bytes:
    """A file with a hole in front, `parts` pieces of data, and a hole at the end."""
    with path.open("wb") as file:
        for number in range(parts):
            file.seek(number * (1 << 16) + 8192)
            file.write(b"data %d" % number)
        file.truncate(parts * (1 << 16) + 40_000)
    return path.read_bytes()


@pytest.mark.parametrize("parts", [0, 1, 3, 60])
@pytest.mark.parametrize("form", _FORMS)
def test_a_sparse_file_is_what_it_was(tmp_path: Path, form: str, parts: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = _holey(source / "holey", parts)
    (source / "plain").write_bytes(b"behind it")
    command = ["tar", "--sparse", *_FORMS[form], "-C", str(source), "-c", "holey", "plain"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < len(content)
    staged = tmp_path / "staged"
    staged.mkdir()
    layer = unpack(io.BytesIO(data), staged, idmap.choose())
    assert (layer.tree / "holey").read_bytes() == content
    assert (layer.tree / "plain").read_bytes() == b"behind it"
    assert os.stat(layer.tree / "holey").st_blocks * 512 < len(content)
    assert layer.metadata["size"] == len(content) + 9
    again = bytearray()
    recipe.replay(layer.recipe, layer.tree, again.extend)
    assert again == data


def test_those_who_do_not_ask_for_sparse_files_get_none(tmp_path: Path) -> None:
    _holey(tmp_path / "holey", 1)
    for options in _FORMS.values():
        command = ["tar", "--sparse", *options, "-C", str(tmp_path), "-c", "holey"]
        data = subprocess.run(command, capture_output=True, check=True).stdout
        with pytest.raises(BadRequest, match="sparse"):
            list(TarReader(io.BytesIO(data)))


@pytest.mark.parametrize(
    "pax",
    [
        {"GNU.sparse.map": "0,5", "GNU.sparse.size": "4"},
        {"GNU.sparse.map": "0,3,2,2", "GNU.sparse.size": "9"},
        {"GNU.sparse.map": "0,4,1", "GNU.sparse.size": "9"},
        {"GNU.sparse.map": "0,4", "GNU.sparse.size": "9"},
        {"GNU.sparse.map": "-1,5", "GNU.sparse.size": "9"},
        {"GNU.sparse.map": "0,5"},
        {"GNU.sparse.map": "0,5", "GNU.sparse.size": "9" * 20},
        {"GNU.sparse.major": "2", "GNU.sparse.minor": "0"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        {"GNU.sparse.size": "9"},
    ],
)
def test_a_map_that_lies_is_refused(tmp_path: Path, tar: MakeTar, pax: dict[str, str]) -> None:
    data = tar({"name": "x", "data": b"12345", "pax": pax}, format=tarfile.PAX_FORMAT)
    with pytest.raises(BadRequest):
        unpack(io.BytesIO(data), tmp_path, idmap.choose())


@pytest.mark.parametrize("count", [b"99999999999", b"1000000", b"1\n0\n", b"x", b""])
def test_a_map_in_front_of_the_data_that_lies_is_refused(
    tmp_path: Path, tar: MakeTar, count: bytes
) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "600"}
    data = tar({"name": "x", "data": count.ljust(1024, b"\n"), "pax": pax})
    with pytest.raises(BadRequest):
        unpack(io.BytesIO(data), tmp_path, idmap.choose())
