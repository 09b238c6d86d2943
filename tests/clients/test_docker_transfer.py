"""`docker commit`, `diff`, `export`, `save`, `load` against this service."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.clients.conftest import commands_called

if TYPE_CHECKING:
    from tests.clients.conftest import Docker
    from tests.conftest import Registry

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_busybox,
    pytest.mark.needs_docker_cli,
    # The oldest CLI alone: newer ones send the same requests.
    pytest.mark.parametrize("docker", commands_called("docker")[:1] or ["docker"], indirect=True),
]

WRITE = (
    "echo new > /etc/new; rm /etc/group; echo more >> /etc/passwd; mkdir -p /a/b; "
    "echo x > /a/b/c; ln /a/b/c /a/b/d; chmod 4755 /a/b/c; rm -rf /usr; mkdir /usr"
)
CHANGES = [
    "A /a",
    "A /a/b",
    "A /a/b/c",
    "A /a/b/d",
    "C /etc",
    "D /etc/group",
    "A /etc/new",
    "C /etc/passwd",
    "C /usr",
    "D /usr/bin",
]


@pytest.fixture
def written(docker: Docker, busybox: str, name: str) -> str:
    """An ended container that has written."""
    docker.output("run", "--name", name, "-e", "A=1", busybox, "sh", "-c", WRITE)
    return name


@pytest.fixture
def image(docker: Docker, name: str) -> Iterator[str]:
    """A name for an image, which is removed when the test is over."""
    yield f"{name}-image:1"
    docker("rmi", "-f", f"{name}-image:1")


def _members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        return {member.name: member for member in read}


def test_diff_lists_what_was_changed(docker: Docker, written: str) -> None:
    assert docker.output("diff", written).splitlines() == CHANGES


def test_diff_of_a_container_that_wrote_nothing(docker: Docker, busybox: str, name: str) -> None:
    docker.output("run", "--name", name, busybox, "true")
    assert docker.output("diff", name) == ""


def test_a_committed_image_has_the_changes(docker: Docker, written: str, image: str) -> None:
    options = ("-a", "Me <me@test>", "-m", "changed", "-c", 'CMD ["cat", "/etc/new"]')
    id = docker.output("commit", *options, "-c", "ENV B=2", written, image)
    about = json.loads(docker.output("image", "inspect", image))[0]
    assert about["Id"] == id
    assert about["Author"] == "Me <me@test>"
    assert about["Comment"] == "changed"
    assert about["Config"]["Env"] == ["A=1", "B=2"]
    assert len(about["RootFS"]["Layers"]) == 2
    assert docker.output("run", "--rm", image) == "new"
    script = (
        "ls /usr; cat /etc/new; stat -c %a%h /a/b/c; test ! -e /etc/group; tail -n1 /etc/passwd"
    )
    assert docker.output("run", "--rm", image, "sh", "-c", script).splitlines() == [
        "new",
        "47552",
        "more",
    ]
    history = docker.output("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert history.splitlines()[0] == f"sh -c {WRITE}"


def test_a_commit_of_nothing_shares_all_layers(
    docker: Docker, busybox: str, name: str, image: str
) -> None:
    docker.output("run", "--name", name, busybox, "true")
    docker.output("commit", name, image)
    layers = ("image", "inspect", "--format", "{{.RootFS.Layers}}")
    assert docker.output(*layers, image) == docker.output(*layers, busybox)


def test_a_running_container_goes_on_after_a_commit(
    docker: Docker, busybox: str, name: str, image: str
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/a; echo $i > /tmp/b; done"
    docker.output("run", "-d", "--name", name, busybox, "sh", "-c", script)
    for pause in ((), ("--pause=false",)):
        docker.output("commit", *pause, name, image)
        docker.output("run", "--rm", image, "cat", "/tmp/a")
    before = docker.output("exec", name, "cat", "/tmp/b")
    script = f'until [ "$(cat /tmp/b)" != "{before}" ]; do :; done'
    docker.output("exec", name, "sh", "-c", script)


def test_what_is_in_memory_is_found_by_comparison(
    docker: Docker, busybox: str, name: str, image: str
) -> None:
    script = f"{WRITE}; touch /tmp/ready; exec sleep 1000"
    options = ("--rm", "--tmpfs", "/t", "--name", name)
    docker.output("run", "-d", *options, busybox, "sh", "-c", script)
    docker.output("exec", name, "sh", "-c", "until [ -e /tmp/ready ]; do :; done; echo > /t/x")
    assert docker.output("diff", name).splitlines() == [
        *CHANGES[:-2],
        "C /tmp",
        "A /tmp/ready",
        *CHANGES[-2:],
    ]
    docker.output("commit", name, image)
    script = "cat /etc/new; stat -c %a%h /a/b/c; tail -n1 /etc/passwd; ls /usr; ! test -e /t"
    assert docker.output("run", "--rm", image, "sh", "-c", script).splitlines() == [
        "new",
        "47552",
        "more",
    ]


@pytest.mark.needs_root
def test_a_commit_of_a_container_of_the_machines_own_root(
    docker: Docker, name: str, image: str
) -> None:
    script = "echo new > /etc/sandboxed; rm -f /etc/hostname.old; mkdir /usr/share/sandboxed"
    docker.output("run", "--name", name, "host", "sh", "-c", script)
    changes = docker.output("diff", name).splitlines()
    # The places where this interpreter is shown may be among them.
    assert [each for each in changes if not f"{sys.prefix}/".startswith(f"{each[2:]}/")] == [
        "C /etc",
        "A /etc/sandboxed",
        "C /usr",
        "C /usr/share",
        "A /usr/share/sandboxed",
    ]
    docker.output("commit", name, image)
    script = "cat /etc/sandboxed && test -d /usr/share/sandboxed && test -e /etc/passwd"
    assert docker.output("run", "--rm", image, "sh", "-c", script) == "new"
    assert b"it lies on this machine's root" in docker("save", image).stderr
    assert b"it lies on this machine's root" in docker("push", image).stderr


def test_export_is_the_merged_root(docker: Docker, written: str, image: str) -> None:
    done = docker("export", written)
    assert done.returncode == 0, done.stderr
    members = _members(done.stdout)
    assert "etc/group" not in members
    assert members["etc/new"].size == 4
    assert members["a/b/d"].linkname == "a/b/c"
    assert docker("import", "-", image, input=done.stdout).returncode == 0
    assert docker.output("run", "--rm", image, "cat", "/etc/new") == "new"


def test_export_of_a_running_container_leaves_out_its_mounts(
    docker: Docker, busybox: str, name: str
) -> None:
    docker.output("run", "-d", "--name", name, "--tmpfs", "/t", busybox, "sleep", "1000")
    docker.output("exec", name, "sh", "-c", "echo x > /t/x; echo y > /y")
    done = docker("export", name)
    assert done.returncode == 0, done.stderr
    names = set(_members(done.stdout))
    assert {"y", "t", "proc", "sys", "dev", "bin/busybox"} <= names
    assert not {each for each in names if each.startswith(("t/", "proc/", "sys/", "dev/"))}


def test_saved_images_are_loaded_again(docker: Docker, written: str, image: str) -> None:
    id = docker.output("commit", written, image)
    done = docker("save", image)
    assert done.returncode == 0, done.stderr
    docker.output("rmi", image)
    assert docker("load", input=done.stdout).returncode == 0
    assert docker.output("image", "inspect", "--format", "{{.Id}}", image) == id
    assert docker("save", image).stdout == done.stdout
    members = _members(done.stdout)
    assert {"oci-layout", "index.json", "manifest.json"} <= set(members)
    both = docker("save", image, id)
    assert len(_members(both.stdout)) == len(members)


def test_docker_push_and_pull(docker: Docker, written: str, image: str, registry: Registry) -> None:
    name = f"{registry.address}/pushed:1"
    id = docker.output("commit", written, name)
    digest = docker.output("push", "-q", name)
    assert digest == f"{registry.address}/pushed:1"
    shown = docker.output("push", name)
    assert "The push refers to repository" in shown
    assert "Layer already exists" in shown
    digests = docker.output("image", "inspect", "--format", "{{json .RepoDigests}}", name)
    (known,) = json.loads(digests)
    assert known.rpartition("@")[2] in shown
    docker.output("rmi", name)
    docker.output("pull", "-q", known)
    assert docker.output("image", "inspect", "--format", "{{.Id}}", known) == id
    docker.output("rmi", "-f", id)


def test_what_cannot_be_saved(docker: Docker) -> None:
    assert b"No such image" in docker("save", "nothing-here:1").stderr
    assert b"this machine's own root" in docker("save", "host").stderr
