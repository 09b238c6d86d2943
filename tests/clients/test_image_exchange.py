"""Images made here in other programs, and theirs here, with the real programs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import Client, connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns]

_LAYERS: list[list[dict[str, Any]]] = [
    [
        {"name": "etc", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "etc/f", "data": b"one", "mode": 0o640, "gid": 42},
        {"name": "gone", "data": b"x"},
        {"name": "dir", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "dir/hidden", "data": b"x"},
        {"name": "n" * 150, "data": b"long"},
        {"name": "dev", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "dev/null", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    ],
    [
        {"name": "etc", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "etc/g", "type": tarfile.LNKTYPE, "linkname": "etc/h"},
        {"name": ".wh.gone"},
        {"name": "dir", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "dir/.wh..wh..opq"},
        {"name": "dir/new", "data": b"new", "pax": {"SCHILY.xattr.user.note": "kept"}},
    ],
]


def _tar(members: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            fields = dict(member)
            data, pax = fields.pop("data", b""), fields.pop("pax", {})
            info = tarfile.TarInfo(fields.pop("name"))
            info.size, info.pax_headers, info.mtime = len(data), pax, 1_700_000_000
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _saved(tag: str) -> bytes:
    """An image as docker's older versions save it: two layers, with whiteouts and a device."""
    upper = [{"name": "etc/h", "data": b"linked"}, *_LAYERS[1]]
    layers = [_tar(_LAYERS[0]), _tar(upper)]
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["A=1"]},
        "history": [{"created_by": "one"}, {"created_by": "two"}],
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    parts = {
        "0/layer.tar": layers[0],
        "1/layer.tar": layers[1],
        name: text,
        "manifest.json": json.dumps(manifest).encode(),
    }
    return _tar([{"name": name, "data": data} for name, data in parts.items()])


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False, lease=False) as client:
        yield client


@pytest.fixture
def image(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an image that is removed when the test is over."""
    name = f"exchange/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]}:1"
    client.image_load(io.BytesIO(_saved(name)))
    yield name
    client.image_remove(client.image_inspect(name)["Id"], force=True)


@pytest.fixture
def archive(client: Client, image: str, tmp_path: Path) -> Path:
    client.image_save(image, tmp_path / "ours.tar")
    return tmp_path / "ours.tar"


class Tool:
    """Another program, with a home and a store of its own."""

    def __init__(self, base: Path, runroot: Path) -> None:
        self.base, self.runroot = base, runroot
        for name in ("home", "run", "tmp"):
            (base / name).mkdir()
        (base / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.environ = {
            **os.environ,
            "HOME": str(base / "home"),
            "TMPDIR": str(base / "tmp"),
            "XDG_RUNTIME_DIR": str(base / "run"),
        }

    def __call__(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, cwd=self.base
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def skopeo(self, source: str, target: str) -> None:
        self("skopeo", "--policy", self.base / "policy.json", "copy", "-q", source, target)

    def podman(self, *args: str | Path) -> str:
        places = ("--root", self.base / "tmp/root", "--runroot", self.runroot)
        trust: list[str | Path] = ["--signature-policy", self.base / "policy.json"]
        policy = trust if args[0] == "load" else []
        options = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")
        return self("podman", *places, *options, args[0], *policy, *args[1:])


@pytest.fixture
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    # podman wants no more than 50 characters there.
    runroot = Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
    tool = Tool(tmp_path_factory.mktemp("t"), runroot)
    yield tool
    if any((tool.base / "run").rglob("pause.pid")):
        tool.podman("system", "migrate")  # ends the process that holds podman's user namespace
    shutil.rmtree(runroot, ignore_errors=True)


@pytest.mark.needs_skopeo
@pytest.mark.parametrize("kind", ["docker-archive:{}", "oci-archive:{}:1"])
def test_skopeo_takes_ours_and_we_take_its(
    client: Client, image: str, archive: Path, tool: Tool, kind: str
) -> None:
    id = client.image_inspect(image)["Id"]
    tool.skopeo(kind.format(archive), f"dir:{tool.base}/copied")
    manifest = json.loads((tool.base / "copied/manifest.json").read_text())
    assert manifest["config"]["digest"] == id
    client.image_remove(image)
    theirs = tool.base / "theirs.tar"
    name = image if kind.startswith("docker") else "1"
    tool.skopeo(f"dir:{tool.base}/copied", f"{kind.partition(':')[0]}:{theirs}:{name}")
    (loaded,) = client.image_load(theirs)
    assert client.image_inspect(loaded)["Id"] == id
    client.image_tag(loaded, *image.split(":"))


@pytest.mark.needs_umoci
def test_umoci_unpacks_ours_and_we_load_what_it_makes(
    client: Client, image: str, archive: Path, tool: Tool
) -> None:
    before = client.image_inspect(image)
    layout = tool.base / "layout"
    layout.mkdir()
    tool("tar", "-xf", archive, "-C", layout)
    tool("umoci", "unpack", "--rootless", "--image", f"{layout}:1", tool.base / "bundle")
    root = tool.base / "bundle/rootfs"
    assert (root / "etc/f").read_bytes() == b"one"
    assert (root / "etc/h").stat().st_ino == (root / "etc/g").stat().st_ino
    assert sorted(path.name for path in (root / "dir").iterdir()) == ["new"]
    assert not (root / "gone").exists()
    (root / "etc/added").write_text("by umoci")
    tool("umoci", "repack", "--image", f"{layout}:2", tool.base / "bundle")
    tool("umoci", "rm", "--image", f"{layout}:1")
    tool("rm", layout / "manifest.json")
    tool("tar", "-cf", tool.base / "theirs.tar", "-C", layout, ".")
    (loaded,) = client.image_load(tool.base / "theirs.tar")
    # umoci keeps the annotation with the whole name, which containerd and we read first.
    assert loaded == image
    layers = client.image_inspect(loaded)["RootFS"]["Layers"]
    assert layers[:2] == before["RootFS"]["Layers"]
    assert len(layers) == 3
    client.image_remove(before["Id"])


@pytest.mark.needs_podman
@pytest.mark.needs_subids
def test_podman_loads_ours_and_we_load_what_it_saves(
    client: Client, image: str, archive: Path, tool: Tool
) -> None:
    id = client.image_inspect(image)["Id"].removeprefix("sha256:")
    tool.podman("load", "-q", "-i", archive)
    name = f"docker.io/{image}"
    assert tool.podman("image", "inspect", "--format", "{{.Id}}", name).strip() == id
    client.image_remove(image)
    for kind in ("docker-archive", "oci-archive"):
        theirs = tool.base / f"{kind}.tar"
        tool.podman("save", "-q", "--format", kind, "-o", theirs, name)
        (loaded,) = client.image_load(theirs)
        assert client.image_inspect(loaded)["Id"] == f"sha256:{id}"


@pytest.fixture
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a docker command for a daemon of the test's own, without networks."""
    base = tmp_path_factory.mktemp("d")
    sock = base / "s"
    command = ["dockerd", "--host", f"unix://{sock}", "--data-root", str(base / "data")]
    command += ["--exec-root", str(base / "exec"), "--pidfile", str(base / "pid")]
    command += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not _answers(sock):
            assert process.poll() is None, (base / "log").read_text()
            time.sleep(0.02)
        yield {**os.environ, "DOCKER_HOST": f"unix://{sock}", "DOCKER_CONFIG": str(base / "c")}
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@pytest.mark.needs_dockerd
def test_docker_loads_ours_and_we_load_what_it_saves(
    client: Client, image: str, archive: Path, dockerd: dict[str, str], tmp_path: Path
) -> None:
    id = client.image_inspect(image)["Id"]
    docker = ["docker", "image"]
    with archive.open("rb") as file:
        subprocess.run([*docker, "load"], stdin=file, env=dockerd, check=True, capture_output=True)
    asked = [*docker, "inspect", "--format", "{{.Id}}", image]
    found = subprocess.run(asked, env=dockerd, check=True, capture_output=True, text=True).stdout
    assert found.strip() == id
    client.image_remove(image)
    theirs = tmp_path / "theirs.tar"
    subprocess.run([*docker, "save", "-o", theirs, image], env=dockerd, check=True)
    assert client.image_load(theirs) == [image]
    assert client.image_inspect(image)["Id"] == id
