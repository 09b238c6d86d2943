"""What the factory `volume` makes of its arguments, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import Recipe, Step, volume
from pytest_sandbox.call_site import CallSite
from pytest_sandbox.volume_plan import VolumePlan


def plan(site: Path = Path("/"), **given: Any) -> VolumePlan:
    defaults: dict[str, Any] = {
        "files": {}, "commands": (), "image": None, "env": {}, "user": "",
        "target": "/volume", "recipe": None, "snapshot": None,
    }  # fmt: skip
    return VolumePlan(**{**defaults, **given}, site=CallSite(site))


def test_files_and_commands_become_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"3")
    (tmp_path / "one").write_bytes(b"4")
    made = plan(
        tmp_path,
        files={"a": b"1", "b/c": "2", "tree": Path("tree"), "one": Path("one")},
        commands=(("make", "it"),),
        env={"A": "b"},
        user="nobody",
    )
    assert made._recipe("busybox") == Recipe(
        "busybox",
        "/volume",
        [Step(("make", "it"), workdir="/volume")],
        {
            "/volume/a": b"1",
            "/volume/b/c": b"2",
            "/volume/tree/deep/file": b"3",
            "/volume/one": b"4",
        },
        {"A": "b"},
        "nobody",
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        plan(tmp_path, files={"a": Path("nowhere")})._recipe("host")


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"files": {"/a": ""}}, ValueError, "file '/a' is not a path inside the volume"),
        ({"files": {"a/../../b": ""}}, ValueError, "is not a path inside the volume"),
        ({"files": {"": ""}}, ValueError, "file '' is not a path inside the volume"),
        ({"commands": ["make it"]}, TypeError, r"a command is a list of arguments: \['make it'"),
        ({"target": "data"}, ValueError, "target 'data' is not an absolute path"),
        ({"files": {"a": ""}, "snapshot": "sha256:1"}, TypeError, "only one of them"),
        ({"recipe": Recipe("host", "/x"), "snapshot": "sha256:1"}, TypeError, "only one of them"),
    ],
)
def test_arguments_that_cannot_work(
    arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        volume(**arguments)
