"""Binds, Mounts, Tmpfs and Volumes of a create body."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxd.engine.configuration import parse
from sandboxd.engine.settings import MountRequest
from sandboxd.errors import BadRequest


def mounts(volumes: dict[str, Any] | None = None, **host: Any) -> tuple[MountRequest, ...]:
    body = {"Image": "i", "Cmd": ["x"], "HostConfig": host, "Volumes": volumes}
    return parse(body, {}).host.mounts


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("/src:/dst", MountRequest("bind", "/dst", "/src", create_source=True)),
        (
            "/src:/dst/:ro,z",
            MountRequest("bind", "/dst", "/src", True, create_source=True, mode="ro,z"),
        ),
        ("/src:/dst:O", MountRequest("bind", "/dst", "/src", copy_on_write=True, mode="O")),
        ("name:/dst", MountRequest("volume", "/dst", "name")),
        ("name:/dst:nocopy", MountRequest("volume", "/dst", "name", copy=False, mode="nocopy")),
        ("/dst", MountRequest("volume", "/dst")),
        ("/a/../b:/dst", MountRequest("bind", "/dst", "/a/../b", create_source=True)),
    ],
)
def test_binds(bind: str, expected: MountRequest) -> None:
    assert mounts(Binds=[bind]) == (expected,)


@pytest.mark.parametrize(
    "bind",
    [
        "",
        ":",
        "a:",
        ":/dst",
        "/src:dst",
        "/src:/",
        "/src:/..",
        "/src:/dst/../../etc",
        "/src:/dst:what",
        "/src:/dst:ro,rw",
        "/src:/dst:ro,O",
        "name:/dst:O",
        "/src:/dst:ro:more",
        "../src:/dst",
        "na/me:/dst",
        "n:/dst",
        "/src:/dst:nocopy",
    ],
)
def test_broken_binds(bind: str) -> None:
    with pytest.raises(BadRequest):
        mounts(Binds=[bind])


def test_the_message_names_the_path_with_dots() -> None:
    with pytest.raises(BadRequest, match=r"invalid mount path: '/a/\.\./b': '\.\.' is not allowed"):
        mounts(Binds=["v1:/a/../b"])


def test_mounts_of_each_type() -> None:
    made = mounts(
        Mounts=[
            {
                "Type": "volume",
                "Source": "named",
                "Target": "/v",
                "ReadOnly": True,
                "VolumeOptions": {
                    "NoCopy": True,
                    "Subpath": "a/b",
                    "Labels": {"l": "1"},
                    "DriverConfig": {"Name": "socket", "Options": {"o": "2"}},
                },
            },
            {"Type": "bind", "Source": "/h", "Target": "/b"},
            {
                "Type": "tmpfs",
                "Target": "/t",
                "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777},
            },
        ],
        Tmpfs={"/u": "size=5m,noexec"},
    )
    assert made == (
        MountRequest(
            "volume",
            "/v",
            "named",
            True,
            copy=False,
            subpath="a/b",
            driver="socket",
            labels={"l": "1"},
            options={"o": "2"},
        ),
        MountRequest("bind", "/b", "/h"),
        MountRequest("tmpfs", "/t", tmpfs_options="size=1048576,mode=1777"),
        MountRequest("tmpfs", "/u", tmpfs_options="size=5m,noexec"),
    )


@pytest.mark.parametrize(
    "mount",
    [
        {"Type": "volume", "Target": ""},
        {"Type": "volume", "Target": "rel"},
        {"Type": "volume", "Target": "/x/.."},
        {"Type": "volume", "Source": "a/b", "Target": "/x"},
        {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "../up"}},
        {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "/abs"}},
        {"Type": "bind", "Target": "/x"},
        {"Type": "bind", "Source": "rel", "Target": "/x"},
        {"Type": "tmpfs", "Source": "a", "Target": "/x"},
        {"Type": "what", "Target": "/x"},
        {"Target": "/x"},
    ],
)
def test_broken_mounts(mount: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        mounts(Mounts=[mount])


@pytest.mark.parametrize("options", ["size=x", "lowerdir=/", "mode=9999", "suid"])
def test_tmpfs_options_are_a_closed_list(options: str) -> None:
    with pytest.raises(BadRequest):
        mounts(Tmpfs={"/t": options})


def test_two_mounts_in_one_place() -> None:
    with pytest.raises(BadRequest, match="Duplicate mount point: /x"):
        mounts(Binds=["aa:/x", "bb:/x/"])
    with pytest.raises(BadRequest, match="Duplicate mount point: /x"):
        mounts(Binds=["aa:/x"], Tmpfs={"/x": ""})


def test_an_anonymous_volume_gives_way_to_what_is_mounted_there() -> None:
    assert mounts({"/x": {}}, Binds=["aa:/x"]) == (MountRequest("volume", "/x", "aa"),)
    assert mounts({"/x": {}, "/x/": {}}) == (MountRequest("volume", "/x"),)


def test_parents_come_before_children() -> None:
    made = mounts({"/a": {}}, Binds=["aa:/a/b/c", "bb:/a/b"])
    assert [request.target for request in made] == ["/a", "/a/b", "/a/b/c"]
