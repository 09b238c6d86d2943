"""Snapshots that travel: from one service through a registry to another with a state of its own."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import (
    BadRequest,
    Client,
    Forbidden,
    NoSuchSnapshot,
    Recipe,
    SandboxError,
    Snapshot,
    connect,
)
from tests.sandboxd.images.registry.conftest import docker_registry

if TYPE_CHECKING:
    from tests.conftest import Registry, Service
    from tests.sandboxd.images.registry.conftest import DockerRegistry

__all__ = ["docker_registry"]

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Machine = Callable[..., "Service"]

SCRIPT = """
cd /data
echo plain > file; chmod 4750 file; chown 12:34 file
ln file other; ln -s ../../etc/passwd link; mkfifo pipe
mkdir -p deep/er; chmod 1770 deep; chown 5:6 deep
dd if=/dev/zero of=holes bs=1 count=0 seek=9000000 2>/dev/null
echo end >> holes; printf 'x' | dd of=holes bs=1 seek=4000000 conv=notrunc 2>/dev/null
touch -d '2001-02-03 04:05:06' file
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Call it for a service with a state and a socket of its own."""
    with ExitStack() as held:
        yield lambda **environ: _started(held, environ)


def _started(held: ExitStack, environ: dict[str, str]) -> Service:
    from tests.conftest import Service, _service_directory

    service = Service(held.enter_context(_service_directory()), **environ)
    service.start()
    held.callback(service.stop)
    return service


@dataclass
class Pair:
    """Two services that have nothing in common but the image busybox, and a registry."""

    here: Service
    there: Service
    ours: Client
    theirs: Client
    registry: Registry

    @property
    def place(self) -> str:
        """A repository."""
        return f"{self.registry.address}/team/seeds"


@pytest.fixture(scope="module")
def two(
    busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Service, Client, Client]]:
    with ExitStack() as held:
        here, there = _started(held, {}), _started(held, {})
        ours = held.enter_context(connect(here.host, autostart=False))
        theirs = held.enter_context(connect(there.host, autostart=False))
        ours.image_import(busybox_tar, "busybox:latest")
        _copy_image(here, ours, theirs)
        yield here, there, ours, theirs


@pytest.fixture
def pair(two: tuple[Service, Service, Client, Client], registry: Registry) -> Iterator[Pair]:
    """No snapshot is left in them after the test."""
    pair = Pair(*two, registry)
    yield pair
    for client in (pair.ours, pair.theirs):
        client.snapshot_cache, client.snapshot_cache_push = None, False
        for snapshot in client.snapshots():
            client.snapshot_remove(snapshot.key)


def _copy_image(source: Service, ours: Client, theirs: Client) -> None:
    """The same image, with the same id, by a registry over the state of the first service."""
    from tests.conftest import Registry

    registry = Registry(source.root)
    registry.start()
    try:
        theirs.pull(f"{registry.address}/busybox:latest")
        theirs.image_tag(f"{registry.address}/busybox:latest", "busybox")
    finally:
        registry.stop()
    assert theirs.image_inspect("busybox")["Id"] == ours.image_inspect("busybox")["Id"]


def recipe(script: str = SCRIPT, **more: Any) -> Recipe:
    return Recipe("busybox", "/data", [["sh", "-c", script]], **more)


LOOK = "cd /data; find . -exec stat -c '%n %F %a %u:%g %s %h' {} + | sort; readlink link; cat file"


def look(client: Client, snapshot: Snapshot | str, script: str = LOOK) -> str:
    """What a container sees in a volume that starts from the snapshot."""
    volume = client.volume(snapshot=snapshot)
    done = client.run("busybox", ["sh", "-c", script], volumes={volume.name: "/data"})
    client.volume_remove(volume.name)
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def test_it_arrives_as_it_was(pair: Pair) -> None:
    ours, theirs, place = pair.ours, pair.theirs, pair.place
    made = ours.snapshot(recipe())
    sent = ours.snapshot_push(made.key, place)
    tag = made.key.removeprefix("sha256:")
    assert not sent.existed
    assert sent.reference in (f"{place}:{tag}", f"{place}:{tag}-single")
    got = theirs.snapshot_pull(place, made.key)
    assert (got.digest, got.size, got.files) == (made.digest, made.size, made.files)
    assert (got.key, got.spec, got.created) == (made.key, made.spec, made.created)
    assert look(theirs, got) == look(ours, made)
    assert theirs.snapshots() == [got]
    # Once more: nothing is sent, nothing is fetched.
    again = ours.snapshot_push(made.key[:20], place)
    assert (again.existed, again.size, again.digest) == (True, 0, sent.digest)
    assert pair.registry.stop() == 0
    assert theirs.snapshot_pull(place, made.key) == got


def test_holes_stay_holes(pair: Pair) -> None:
    made = pair.ours.snapshot(recipe())
    pair.ours.snapshot_push(made.key, f"{pair.place}:holes")
    pair.theirs.snapshot_pull(f"{pair.place}:holes")
    blocks = []
    for service in (pair.here, pair.there):
        tree = made.digest.removeprefix("sha256:")
        status = (service.root / "snapshots" / tree / "holes").stat()
        assert status.st_size == 9_000_004
        blocks.append(status.st_blocks)
    assert blocks[0] == blocks[1] < 100


def test_a_stack_shares_its_base(pair: Pair) -> None:
    ours, theirs, place = pair.ours, pair.theirs, pair.place
    big = "dd if=/dev/urandom of=/data/big bs=1M count=2 2>/dev/null"
    base = ours.snapshot(recipe(f"{big}; mkdir /data/d; echo 1 > /data/d/x"))
    top = ours.snapshot(recipe("rm -r /data/d; mkdir /data/d; echo 2 > /data/d/y", base=base))
    assert ours.snapshot_push(base.key, place).size > 2 << 20
    assert ours.snapshot_push(top.key, place).size < 1 << 20
    got = theirs.snapshot_pull(place, top.key)
    assert (got.digest, got.size, got.files) == (top.digest, top.size, top.files)
    script = "cd /data; find . | sort; wc -c big"
    assert look(theirs, got, script) == look(ours, top, script)
    # The base's tree is here already: only its config is fetched.
    assert theirs.snapshot_pull(place, base.key).digest == base.digest
    theirs.snapshot_remove(top.key)
    assert look(theirs, base.key, "cat /data/d/x") == "1\n"


def test_what_is_not_there_or_is_something_else(pair: Pair) -> None:
    client, place = pair.ours, pair.place
    made = client.snapshot(recipe("true"))
    other = client.snapshot(recipe("echo other > /data/other"))
    with pytest.raises(NoSuchSnapshot):
        client.snapshot_pull(place, "sha256:" + "a" * 64)
    with pytest.raises(NoSuchSnapshot):
        client.snapshot_push("sha256:" + "a" * 64, place)
    with pytest.raises(BadRequest, match="which snapshot"):
        client.snapshot_pull(place)
    client.snapshot_push(made.key, f"{place}:{other.key.removeprefix('sha256:')}")
    client.snapshot_remove(other.key)
    with pytest.raises(BadRequest, match=f"it is the snapshot {made.key}"):
        client.snapshot_pull(place, other.key)
    for reference in ("", "UPPER/case", f"{place}@sha256:{'a' * 64}"):
        with pytest.raises(SandboxError):
            client.snapshot_push(made.key, reference)
    assert [each.key for each in client.snapshots()] == [made.key]


def test_an_image_is_no_snapshot(pair: Pair) -> None:
    from tests.sandboxd.registry_server.conftest import Wire

    Wire(pair.registry.address).push_image("team/seeds", "image")
    with pytest.raises(BadRequest, match="is no snapshot"):
        pair.ours.snapshot_pull(f"{pair.place}:image")


@pytest.mark.needs_subids
def test_under_a_single_id_owners_squash_and_do_not_travel_back(
    pair: Pair, machine: Machine, busybox_tar: Path
) -> None:
    wide, place = pair.ours, pair.place
    with connect(machine(SANDBOX_IDMAP="single").host, autostart=False) as single:
        single.image_import(busybox_tar, "busybox:latest")
        script = "echo x > /data/file"
        theirs = wide.snapshot(recipe(f"{script}; chown 12:34 /data/file"))
        wide.snapshot_push(theirs.key, place)
        got = single.snapshot_pull(place, theirs.key)
        assert look(single, got, "stat -c %u:%g /data/file; cat /data/file") == "0:0\nx\n"
        ours = single.snapshot(recipe(script))
        sent = single.snapshot_push(ours.key, place)
        assert sent.reference.endswith("-single")
        with pytest.raises(NoSuchSnapshot):
            wide.snapshot_pull(place, ours.key)
        with pytest.raises(BadRequest, match="owners are lost"):
            wide.snapshot_pull(sent.reference)


def test_a_damaged_one_leaves_nothing_and_the_next_pull_works(pair: Pair) -> None:
    ours, theirs, place = pair.ours, pair.theirs, pair.place
    made = ours.snapshot(recipe("dd if=/dev/urandom of=/data/big bs=1M count=1 2>/dev/null"))
    ours.snapshot_push(made.key, place)
    blobs = (pair.registry.root / "blobs/sha256").iterdir()
    blob = max(blobs, key=lambda path: path.stat().st_size)
    whole = blob.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"x", whole + b"x", b""):
        blob.write_bytes(damaged)
        with pytest.raises(SandboxError):
            theirs.snapshot_pull(place, made.key)
        assert theirs.snapshots() == []
        assert list((pair.there.root / "staging").iterdir()) == []
    blob.write_bytes(whole)
    assert theirs.snapshot_pull(place, made.key).digest == made.digest


def test_those_who_want_the_same_share_one_journey(pair: Pair) -> None:
    made = pair.ours.snapshot(recipe("dd if=/dev/urandom of=/data/big bs=1M count=3 2>/dev/null"))
    pair.ours.snapshot_push(made.key, pair.place)
    with ThreadPoolExecutor(4) as pool:
        pulls = [pool.submit(pair.theirs.snapshot_pull, pair.place, made.key) for _ in range(4)]
        got = [pull.result() for pull in pulls]
    assert {each.digest for each in got} == {made.digest}
    assert len(pair.theirs.snapshots()) == 1


def test_credentials_are_those_of_docker_login(
    pair: Pair, service_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import Registry

    made = pair.ours.snapshot(recipe("true"))
    tokens = service_directory / "tokens"
    tokens.write_text("abcdefghijklmnopqrstuvwx\n")
    locked = Registry(service_directory / "locked", "--token-file", str(tokens))
    locked.start()
    try:
        place = f"{locked.address}/seeds"
        monkeypatch.setenv("DOCKER_CONFIG", str(service_directory))
        with pytest.raises(Forbidden, match="push access denied"):
            pair.ours.snapshot_push(made.key, place)
        auth = base64.b64encode(b"ci:abcdefghijklmnopqrstuvwx").decode()
        config = {"auths": {locked.address: {"auth": auth}}}
        (service_directory / "config.json").write_text(json.dumps(config))
        pair.ours.snapshot_push(made.key, place)
        assert pair.theirs.snapshot_pull(place, made.key).digest == made.digest
        wrong = ("ci", "another token that is long enough")
        with pytest.raises(Forbidden):
            pair.ours.snapshot_push(made.key, place, credentials=wrong)
    finally:
        locked.stop()


@pytest.mark.needs_registry
def test_through_debians_registry(pair: Pair, docker_registry: DockerRegistry) -> None:
    made = pair.ours.snapshot(recipe())
    place = f"{docker_registry.authority}/team/seeds"
    pair.ours.snapshot_push(made.key, place)
    got = pair.theirs.snapshot_pull(place, made.key)
    assert look(pair.theirs, got) == look(pair.ours, made)


@pytest.mark.needs_skopeo
def test_other_tools_can_carry_it(pair: Pair) -> None:
    made = pair.ours.snapshot(recipe("echo carried > /data/file"))
    pair.ours.snapshot_push(made.key, f"{pair.place}:one")
    command = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    copied = f"{pair.registry.address}/copied:one"
    places = [f"docker://{place}" for place in (f"{pair.place}:one", copied)]
    subprocess.run([*command, *places], check=True, capture_output=True)
    got = pair.theirs.snapshot_pull(copied)
    assert look(pair.theirs, got, "cat /data/file") == "carried\n"


def test_a_recipe_is_fetched_from_the_cache_and_built_where_it_has_none(pair: Pair) -> None:
    ours, theirs = pair.ours, pair.theirs
    said: list[str] = []
    for client in (ours, theirs):
        client.snapshot_cache, client.snapshot_cache_push = pair.place, True
        client.on_cache_failure = said.append
    # A different content each time that it is built.
    random = recipe("cat /proc/sys/kernel/random/uuid > /data/id")
    made = ours.snapshot(random)
    assert theirs.snapshot(random) == made
    assert look(theirs, made, "cat /data/id") == look(ours, made, "cat /data/id")
    # A claim looks there, too, and what is sealed under it goes there.
    key = "sha256:" + "c" * 64
    with ours.claim(key) as claim:
        assert claim.snapshot is None
        volume = ours.volume()
        mounts = {volume.name: "/data"}
        ours.run("busybox", ["sh", "-c", "echo claimed > /data/file"], volumes=mounts)
        claim.seal(volume)
    with theirs.claim(key) as claim:
        assert claim.snapshot is not None
        assert look(theirs, claim.snapshot, "cat /data/file") == "claimed\n"
    assert said == []


def test_a_cache_that_cannot_be_reached_is_a_warning(pair: Pair) -> None:
    client = pair.ours
    said: list[str] = []
    pair.registry.stop()
    client.snapshot_cache, client.snapshot_cache_push = f"{pair.place}/gone", True
    client.on_cache_failure = said.append
    first, second = client.snapshot(recipe("echo 1")), client.snapshot(recipe("echo 2"))
    assert first.key != second.key
    # Within the next minute nobody waits for it again: the same words come at once.
    (warning,) = set(said)
    assert f"{pair.place}/gone is not used" in warning


def test_a_cache_with_a_tag_is_refused(pair: Pair) -> None:
    pair.ours.snapshot_cache = "localhost:1/cache:tag"
    with pytest.raises(BadRequest, match="the tag is the snapshot's key"):
        pair.ours.snapshot(recipe("true"))


def test_on_the_command_line(pair: Pair) -> None:
    made = pair.ours.snapshot(recipe("true"))
    pushed = _sandboxctl(pair.here, "snapshot", "push", pair.place)
    assert pushed.startswith(f"{pair.place}:{made.key.removeprefix('sha256:')}")
    pulled = _sandboxctl(pair.there, "snapshot", "pull", pair.place, "--key", made.key)
    assert pulled == f"{made.key}\n"
    listed = json.loads(_sandboxctl(pair.there, "snapshot", "inspect", made.key))
    assert listed[0]["digest"] == made.digest


def _sandboxctl(service: Service, *args: str) -> str:
    command = [sys.executable, "-c", "from pytest_sandbox.cli import main; main()", *args]
    done = subprocess.run(command, env=service.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
