"""The docker CLI: images and volumes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from .conftest import Docker, unique

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_docker_cli, pytest.mark.needs_busybox]


class TestImages:
    def test_import_run_tag_and_remove(
        self, docker: Docker, busybox_tar: Path, busybox: str
    ) -> None:
        reference = f"{unique('imported')}:v1"
        with busybox_tar.open("rb") as file:
            id_ = docker.output(
                "import", "-c", "CMD echo from-cmd", "-m", "note", "-", reference,
                input=file.read(),
            )  # fmt: skip
        assert id_.startswith("sha256:")
        assert docker.output("run", "--rm", reference) == "from-cmd"
        assert docker.output("run", "--rm", id_.removeprefix("sha256:")[:12]) == "from-cmd"
        other = f"{unique('tagged')}:v2"
        docker.output("tag", reference, other)
        listed = docker.output("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        assert {reference, other} <= set(listed)
        assert "note" in docker.output("history", "--format", "{{.Comment}}", reference)
        docker.output("rmi", reference)
        assert docker("image", "inspect", reference).returncode == 1
        docker.output("rmi", other)

    def test_an_image_in_use_is_kept(self, docker: Docker, busybox_tar: Path, name: str) -> None:
        reference = f"{unique('used')}:1"
        docker.output("import", str(busybox_tar), reference)
        docker.output("create", "--name", name, reference, "true")
        done = docker("rmi", reference)
        assert done.returncode == 1
        assert b"conflict" in done.stderr
        docker.output("rm", name)
        docker.output("rmi", reference)

    def test_load_an_archive_of_docker_save(
        self, docker: Docker, busybox_tar: Path, tmp_path: Path
    ) -> None:
        reference = f"{unique('loaded')}:1"
        archive = tmp_path / "image.tar"
        archive.write_bytes(saved_image(busybox_tar.read_bytes(), reference))
        assert f"Loaded image: {reference}" in docker.output("load", "-i", str(archive))
        assert docker.output("run", "--rm", reference, "echo", "hi") == "hi"
        docker.output("rmi", reference)

    def test_a_broken_archive_is_refused_and_leaves_nothing(
        self, docker: Docker, busybox_tar: Path
    ) -> None:
        reference = f"{unique('broken')}:1"
        half = busybox_tar.read_bytes()[: 1 << 20]
        done = docker("import", "-", reference, input=half)
        assert done.returncode == 1
        assert docker("image", "inspect", reference).returncode == 1

    def test_a_pull_without_a_registry_says_what_to_do_instead(self, docker: Docker) -> None:
        done = docker("pull", "127.0.0.1:1/nosuchimage:1")
        assert done.returncode == 1
        assert b"sandboxctl image load" in done.stderr

    def test_host_is_not_pulled(self, docker: Docker) -> None:
        done = docker("pull", "host")
        assert done.returncode == 1
        assert b"this machine's own root" in done.stderr

    def test_host_runs(self, docker: Docker) -> None:
        assert docker.output("run", "--rm", "host", "echo", "hi") == "hi"


class TestVolumes:
    def test_create_list_inspect_remove(self, docker: Docker) -> None:
        volume = unique("vol")
        assert docker.output("volume", "create", "--label", "a=b", volume) == volume
        names = docker.output("volume", "ls", "-q", "--filter", f"name={volume}")
        assert names == volume
        about = json.loads(docker.output("volume", "inspect", volume))[0]
        assert (about["Name"], about["Driver"], about["Labels"]) == (volume, "local", {"a": "b"})
        assert docker.output("volume", "rm", volume) == volume
        done = docker("volume", "inspect", volume)
        assert done.returncode == 1
        assert b"no such volume" in done.stderr.lower()

    def test_data_outlives_its_container(self, docker: Docker, busybox: str) -> None:
        volume = unique("vol")
        mount = ["-v", f"{volume}:/data"]
        docker.output("run", "--rm", *mount, busybox, "sh", "-c", "echo kept > /data/file")
        assert docker.output("run", "--rm", *mount, busybox, "cat", "/data/file") == "kept"
        docker.output("volume", "rm", volume)

    def test_a_volume_in_use_is_kept(self, docker: Docker, busybox: str, name: str) -> None:
        volume = unique("vol")
        docker.output("create", "--name", name, "-v", f"{volume}:/data", busybox, "true")
        done = docker("volume", "rm", volume)
        assert done.returncode == 1
        assert b"volume is in use" in done.stderr
        docker.output("rm", name)
        docker.output("volume", "rm", volume)

    def test_prune_takes_unnamed_unused_ones(self, docker: Docker, busybox: str) -> None:
        volume = unique("vol")
        docker.output("volume", "create", volume)
        anonymous = docker.output("volume", "create")
        docker.output("volume", "prune", "-f", "--filter", "label!=nothing")
        left = docker.output("volume", "ls", "-q").split()
        assert anonymous not in left
        # An older CLI speaks an API in which prune takes named volumes too.
        if volume in left:
            docker.output("volume", "rm", volume)

    def test_an_empty_named_volume_is_filled_from_the_image(
        self, docker: Docker, busybox: str
    ) -> None:
        volume = unique("vol")
        out = docker.output("run", "--rm", "-v", f"{volume}:/etc", busybox, "ls", "/etc")
        assert "passwd" in out.split()
        docker.output("volume", "rm", volume)

    def test_missing_bind_source_of_a_mount(self, docker: Docker, busybox: str) -> None:
        mount = "type=bind,source=/no/such/source,target=/m"
        done = docker("run", "--rm", "--mount", mount, busybox, "true")
        assert done.returncode == 125
        assert b"bind source path does not exist: /no/such/source" in done.stderr


def saved_image(rootfs: bytes, reference: str) -> bytes:
    """A `docker save` archive of one layer."""
    from hashlib import sha256

    digest = sha256(rootfs).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "created": "2026-01-01T00:00:00Z",
        }
    ).encode()
    config_name = f"{sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]
    files = {
        config_name: config,
        layer_name: rootfs,
        "manifest.json": json.dumps(manifest).encode(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
