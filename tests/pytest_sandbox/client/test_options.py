from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_sandbox.client.bind import Bind
from pytest_sandbox.client.options import ContainerOptions, bytes_of, create_body, shown_paths
from pytest_sandbox.client.snapshot import Recipe, Snapshot, Step
from pytest_sandbox.client.volume import Volume
from pytest_sandbox.errors import BadRequest

VOLUME = Volume(cast(Any, None), {"Name": "data"})


def host_config(**options: Any) -> dict[str, Any]:
    config = create_body("busybox", None, cast(ContainerOptions, options))["HostConfig"]
    assert isinstance(config, dict)
    return config


def test_an_image_alone() -> None:
    assert create_body("busybox", None, {}) == {"Image": "busybox", "HostConfig": {}}


def test_every_keyword_has_its_place() -> None:
    options = ContainerOptions(
        volumes={"data": "/data"},
        env={"A": "1", "B": ""},
        workdir="/w",
        user="u:g",
        entrypoint="sh",
        hostname="h",
        labels={"l": "m"},
        read_only=True,
        upper="disk",
        tmpfs=["/t"],
        show=["/s"],
        memory="64m",
        shm_size=1024,
        pids_limit=10,
        cpus=0.5,
        init=True,
        cap_add=["NET_ADMIN"],
        cap_drop=["ALL"],
        group_add=["wheel"],
        ulimits={"nofile": 10, "core": (0, 1)},
        extra_hosts={"db": "127.0.0.1"},
        network="pid:7",
        sysctls={"net.ipv4.ip_forward": "1"},
        stop_signal="INT",
        tty=True,
        open_stdin=True,
        auto_remove=True,
    )
    assert options.keys() == ContainerOptions.__annotations__.keys()
    body = create_body("busybox", ["-c", "true"], options)
    assert body == {
        "Image": "busybox",
        "Cmd": ["-c", "true"],
        "Env": ["A=1", "B="],
        "WorkingDir": "/w",
        "User": "u:g",
        "Entrypoint": ["sh"],
        "Hostname": "h",
        "Labels": {"l": "m"},
        "StopSignal": "INT",
        "Tty": True,
        "OpenStdin": True,
        "HostConfig": {
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": False}],
            "ReadonlyRootfs": True,
            "StorageOpt": {"upper": "disk"},
            "Tmpfs": {"/t": ""},
            "Memory": 64 << 20,
            "ShmSize": 1024,
            "PidsLimit": 10,
            "NanoCpus": 500_000_000,
            "Init": True,
            "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["ALL"],
            "GroupAdd": ["wheel"],
            "Ulimits": [
                {"Name": "nofile", "Soft": 10, "Hard": 10},
                {"Name": "core", "Soft": 0, "Hard": 1},
            ],
            "ExtraHosts": ["db:127.0.0.1"],
            "NetworkMode": "pid:7",
            "Sysctls": {"net.ipv4.ip_forward": "1"},
            "AutoRemove": True,
        },
    }


@pytest.mark.parametrize(
    ("volumes", "kind", "source", "target", "read_only"),
    [
        ({"/host": "/data"}, "bind", "/host", "/data", False),
        ({"/host/../x": "/data:ro"}, "bind", "/x", "/data", True),
        ({Path("rel"): "/data:rw"}, "bind", os.path.abspath("rel"), "/data", False),
        ({"name": "/data:ro"}, "volume", "name", "/data", True),
        ({VOLUME: "/data"}, "volume", "data", "/data", False),
        ({"/data": VOLUME}, "volume", "data", "/data", False),
        ({"/data:ro": VOLUME}, "volume", "data", "/data", True),
        ({"/host": {"bind": "/data", "mode": "ro"}}, "bind", "/host", "/data", True),
        ({"name": {"bind": "/data"}}, "volume", "name", "/data", False),
        (["/host:/data:ro"], "bind", "/host", "/data", True),
        (["name:/data"], "volume", "name", "/data", False),
    ],
)
def test_volumes(volumes: Any, kind: str, source: str, target: str, read_only: bool) -> None:
    entry = {"Type": kind, "Source": source, "Target": target, "ReadOnly": read_only}
    assert host_config(volumes=volumes)["Mounts"] == [entry]


@pytest.mark.parametrize(
    "volumes",
    [{"/host": "/data:O"}, ["/host:/data:O"], {Bind("/host", copy_on_write=True): "/data"}],
)
def test_a_bind_that_is_copy_on_write(volumes: Any) -> None:
    (entry,) = host_config(volumes=volumes)["Mounts"]
    assert entry["Sandbox"] == {"CopyOnWrite": True}
    assert not entry["ReadOnly"]
    assert host_config(volumes={Bind("/host"): "/data"}) == host_config(volumes={"/host": "/data"})


@pytest.mark.parametrize(
    "volumes",
    [
        {"/host": "data"},
        {"/host": "/data:rx"},
        {"/host": ""},
        {"a/b": "/data"},
        {"./b": "/data"},
        {"data": VOLUME},
        {"data": "/data:O"},
        {Bind("/host", copy_on_write=True): "/data:ro"},
        {"/host": {"bind": "data"}},
        ["/host"],
    ],
)
def test_volumes_that_make_no_sense(volumes: Any) -> None:
    with pytest.raises(BadRequest, match="volume"):
        host_config(volumes=volumes)


def test_none_stands_for_not_given() -> None:
    assert create_body("busybox", None, cast(Any, {"user": None, "volumes": None})) == {
        "Image": "busybox",
        "HostConfig": {},
    }


def test_mistakes_that_a_type_checker_would_find() -> None:
    with pytest.raises(TypeError, match="unknown container option: volume"):
        host_config(volume={})
    with pytest.raises(TypeError, match="not one string"):
        create_body("busybox", cast(Any, "true"), {})
    with pytest.raises(TypeError, match="not one string"):
        host_config(tmpfs="/tmp")
    with pytest.raises(TypeError, match="a Volume is mounted at a path"):
        host_config(volumes={VOLUME: VOLUME})


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(BadRequest, match="not a name"):
        create_body("busybox", None, {"env": {name: "x"}})


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("5", 5), ("2k", 2048), ("3 MiB", 3 << 20), ("1GB", 1 << 30)]
)
def test_sizes(text: int | str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "m", "1.5g", "-1", "1x", "1 m b"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadRequest, match="size"):
        bytes_of(text)


@pytest.mark.parametrize("cpus", [0, -1, float("nan"), float("inf")])
def test_what_is_no_share_of_a_cpu(cpus: float) -> None:
    with pytest.raises(BadRequest, match="cpus"):
        host_config(cpus=cpus)


@pytest.mark.parametrize("image", ["host", "host:latest"])
def test_the_host_image_shows_this_interpreter(image: str) -> None:
    shown = create_body(image, None, {"show": ["/a", Path("b")]})["HostConfig"]["SandboxShow"]
    assert shown[-2:] == ["/a", os.path.abspath("b")]
    executable = os.path.realpath(sys.executable)
    assert any(f"{executable}/".startswith(f"{path}/") for path in [*shown, "/usr"])
    assert not [path for path in shown if f"{path}/".startswith("/usr/") or path == "/"]


def test_nothing_is_shown_twice() -> None:
    assert shown_paths(["/a", "/a/", "/a/../a"])[-1] == "/a"
    assert len(set(shown_paths(["/a", "/a/"]))) == len(shown_paths(["/a"]))


def test_a_recipe_on_the_wire() -> None:
    base = Snapshot("sha256:1", "sha256:2", 3, 4, "", {})
    recipe = Recipe(
        "busybox",
        "/data",
        steps=[["touch", "/data/a"], Step(["id"], user="u", workdir="/w", env={"E": "2"})],
        files={"/in": b"\0\xff"},
        env={"A": "1"},
        user="root",
        base=base,
    )
    assert recipe.to_wire() == {
        "Image": "busybox",
        "Target": "/data",
        "Steps": [
            {"Cmd": ["touch", "/data/a"], "User": "", "WorkingDir": "", "Env": []},
            {"Cmd": ["id"], "User": "u", "WorkingDir": "/w", "Env": ["E=2"]},
        ],
        "Files": {"/in": {"Content": "AP8=", "Mode": 0o644}},
        "Env": ["A=1"],
        "User": "root",
        "Base": "sha256:1",
    }


def test_a_step_is_no_string() -> None:
    with pytest.raises(TypeError, match="not one string"):
        Recipe("busybox", "/data", steps=["touch x"]).to_wire()
