from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from pytest_sandbox import (
    BadRequest,
    Client,
    Conflict,
    NoSuchSnapshot,
    NoSuchVolume,
    Recipe,
    Snapshot,
    Step,
    connect,
)

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with connect(service.host, autostart=False) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f"sha256:{uuid4().hex}{uuid4().hex}"


def test_a_volume_from_made_to_removed(client: Client, busybox: str) -> None:
    with client.volume("data", labels={"a": "b"}) as volume:
        assert (volume.name, volume.driver, volume.labels) == ("data", "local", {"a": "b"})
        client.run(busybox, ["sh", "-c", "echo kept > /d/x"], volumes={volume: "/d"})
        result = client.run(busybox, ["cat", "/d/x"], volumes={"/d:ro": volume})
        assert result.stdout == b"kept\n"
        assert volume.inspect()["Labels"] == {"a": "b"}
        assert "data" in [each.name for each in client.volumes()]
    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        volume.inspect()


def test_the_same_name_is_the_same_volume(client: Client) -> None:
    with client.volume("twice") as first:
        assert client.volume("twice").name == first.name
        with pytest.raises(Conflict):
            client.volume("twice", driver="socket")


def test_a_volume_for_sockets(client: Client, busybox: str) -> None:
    with client.volume(driver="socket") as volume:
        assert len(str(volume.mountpoint)) < 60
        client.run(busybox, ["touch", "/s/x"], volumes={volume: "/s"})
        assert (volume.mountpoint / "x").exists()


def test_a_volume_that_nobody_named_has_a_name(client: Client) -> None:
    with client.volume() as volume:
        assert len(volume.name) == 64


def test_a_volume_in_use_is_not_removed(client: Client, busybox: str) -> None:
    with client.volume() as volume:
        container = client.container(busybox, ["true"], volumes={volume: "/d"})
        with pytest.raises(Conflict, match="volume is in use"):
            volume.remove()
        container.remove()


@pytest.mark.parametrize("name", ["../x", "a/b", "-a", "a b"])
def test_bad_names(client: Client, name: str) -> None:
    with pytest.raises(BadRequest):
        client.volume(name)
    with pytest.raises(NoSuchVolume):
        client.get_volume(name)


def test_an_unknown_option(client: Client) -> None:
    with pytest.raises(BadRequest):
        client.volume(options={"nope": "1"})


def test_prune_spares_named_volumes(service: Service) -> None:
    with connect(service.host, autostart=False, lease=False) as client:
        anonymous, named = client.volume(), client.volume("kept")
        gone = client.volume_prune()["VolumesDeleted"]
        assert anonymous.name in gone
        assert named.name not in gone
        assert named.name in client.volume_prune(all=True)["VolumesDeleted"]


def recipe(image: str, *, seed: str = "1") -> Recipe:
    return Recipe(
        image,
        "/data",
        steps=[
            ["sh", "-c", "cat /in/words > /data/words; echo $A >> /data/words"],
            Step(["sh", "-c", "echo $A-$B >> words"], workdir="/data", env={"B": "b"}),
        ],
        files={"/in/words": f"hello {seed}\n".encode()},
        env={"A": "a"},
    )


def test_a_recipe_is_built_once_and_copied_on_write(client: Client, busybox: str) -> None:
    snapshot = client.snapshot(recipe(busybox))
    assert client.snapshot(recipe(busybox)) == snapshot
    assert client.snapshot(recipe(busybox, seed="2")).key != snapshot.key
    assert client.snapshot_inspect(snapshot.key) == snapshot
    assert snapshot.files == 1
    with client.volume(snapshot=snapshot) as one, client.volume(snapshot=snapshot.key) as other:
        read = ["cat", "/data/words"]
        write = ["sh", "-c", "echo more >> /data/words"]
        client.run(busybox, write, volumes={one: "/data"})
        seeded = b"hello 1\na\na-b\n"
        assert client.run(busybox, read, volumes={one: "/data"}).stdout == seeded + b"more\n"
        assert client.run(busybox, read, volumes={other: "/data"}).stdout == seeded


def test_a_recipe_on_top_of_a_snapshot(client: Client, busybox: str) -> None:
    base = client.snapshot(recipe(busybox, seed="base"))
    more = Recipe(busybox, "/data", steps=[["touch", "/data/more"]], base=base)
    with client.volume(snapshot=client.snapshot(more)) as volume:
        listed = client.run(busybox, ["ls", "/data"], volumes={volume: "/data"}).stdout
        assert listed == b"more\nwords\n"


def test_a_step_that_fails_seals_nothing(client: Client, busybox: str) -> None:
    before = client.snapshots()
    bad = Recipe(busybox, "/data", steps=[["sh", "-c", "echo broken >&2; exit 3"]])
    with pytest.raises(BadRequest, match=r"(?s)3.*broken"):
        client.snapshot(bad)
    assert client.snapshots() == before


def test_an_unknown_snapshot(client: Client, key: str) -> None:
    with pytest.raises(NoSuchSnapshot):
        client.snapshot_inspect(key)
    with pytest.raises(NoSuchSnapshot):
        client.volume(snapshot=key)


def test_a_snapshot_in_use_is_not_removed(client: Client, busybox: str) -> None:
    snapshot = client.snapshot(recipe(busybox, seed="in use"))
    with client.volume(snapshot=snapshot), pytest.raises(Conflict):
        client.snapshot_remove(snapshot.key)
    client.snapshot_remove(snapshot.key)
    assert snapshot.key not in [each.key for each in client.snapshots()]


def test_a_claim_is_sealed_from_this_side(client: Client, busybox: str, key: str) -> None:
    with client.claim(key) as claim:
        assert claim.snapshot is None
        volume = client.volume()
        client.run(busybox, ["sh", "-c", "echo mine > /d/x"], volumes={volume: "/d"})
        sealed = claim.seal(volume, {"made": "here"})
    assert (sealed.key, sealed.files, sealed.spec) == (key, 1, {"made": "here"})
    with client.claim(key) as again:
        assert again.snapshot == sealed
    with pytest.raises(NoSuchVolume):
        volume.inspect()


def test_an_abandoned_claim_goes_to_the_next(service: Service, client: Client, key: str) -> None:
    states: list[Snapshot | None] = []

    def wait_for_it() -> None:
        with connect(service.host, autostart=False) as other, other.claim(key) as claim:
            states.append(claim.snapshot)

    with client.claim(key):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
    thread.join()
    assert states == [None]


CLAIMING = """
import sys, time
from pytest_sandbox import connect
with connect().claim(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_claim_ends_with_its_process(service: Service, client: Client, key: str) -> None:
    command = [sys.executable, "-c", CLAIMING, key]
    with subprocess.Popen(command, env=service.environ, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        holder.kill()
        with client.claim(key) as claim:
            assert claim.snapshot is None
