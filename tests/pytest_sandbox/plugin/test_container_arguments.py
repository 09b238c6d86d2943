"""What the factory `container` refuses at the line where it is called, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import container
from pytest_sandbox.call_site import CallSite


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"command": "sleep 1"}, TypeError, r"command is a list of arguments: \['sleep 1'"),
        ({"volumes": {"data": "site"}}, ValueError, "'data' is not an absolute path"),
        ({"volumes": {"/a": 7}}, TypeError, "a volume fixture is given by its name"),
        ({"volumes": {"/a": "/x", "/b": Path("/x")}}, ValueError, "/x is mounted twice"),
        ({"ready": True}, TypeError, "ready: True is no port, path or function"),
        ({"ready": [80, 1.5]}, TypeError, "ready: 1.5 is no port, path or function"),
        ({"colour": "red"}, TypeError, "unknown argument colour"),
    ],
)
def test_arguments_that_cannot_work(
    arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        container(**arguments)


def test_relative_paths_are_beside_the_calling_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").touch()
    monkeypatch.chdir("/usr")
    site = CallSite(tmp_path)
    assert site.resolve("here") == tmp_path / "here"
    assert site.resolve("there") == Path("/usr/there")
    assert site.resolve("/etc") == Path("/etc")


def test_the_calling_file_is_this_one() -> None:
    def factory() -> CallSite:
        return CallSite.of_caller()

    assert factory().directory == Path(__file__).parent
