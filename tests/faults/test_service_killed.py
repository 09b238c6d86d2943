"""kill -9 of the service: its containers die with it, and the next one finds no half things."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import NoSuchContainer, Recipe, SandboxError, Step

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def test_containers_die_and_are_told_of(victim: Any, watch: Any) -> None:
    before = mounts()
    client = victim.client()
    container = client.container("busybox", ["sh", "-c", "echo hi; sleep 1000"], name="up").start()
    leased = victim.client(lease=True)
    leased.container("busybox", ["sleep", "1000"], name="leased").start()
    client.volume("data")
    with container.follow() as pieces:
        next(pieces)
    process = watch(container)
    victim.kill()
    assert process.ends()
    victim.restart()
    with victim.client() as again:
        found = again.get_container("up")
        state = found.inspect()["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        assert "service ended" in state["Error"]
        assert found.logs() == b"hi\n"
        with pytest.raises(NoSuchContainer):
            again.get_container("leased")
        assert [volume.name for volume in again.volumes()] == ["data"]
        found.start()
        assert found.status == "running"
        assert victim.state("containers") == {found.id}
        found.remove()
    assert mounts() == before
    assert victim.state("containers") == set()


def test_a_recipe_that_was_under_way_leaves_nothing(victim: Any) -> None:
    client = victim.client()
    recipe = Recipe("busybox", "/data", [Step(["sh", "-c", "echo x > /data/f; sleep 1000"])])
    failed: list[SandboxError] = []

    def build() -> None:
        try:
            client.snapshot(recipe)
        except SandboxError as error:
            failed.append(error)

    building = threading.Thread(target=build)
    with victim.client() as watcher, watcher.events(filters={"event": ["start"]}) as events:
        building.start()
        next(events)
        victim.kill()
    building.join(30)
    assert len(failed) == 1
    victim.restart()
    with victim.client() as again:
        assert again.snapshots() == []
        assert again.volumes() == []
        assert again.containers(all=True) == []
    for name in ("containers", "volumes", "snapshots", "staging"):
        assert victim.state(name) == set(), name


@pytest.mark.parametrize("seed", range(4))
def test_killed_in_the_middle_of_everything(victim: Any, seed: int) -> None:
    """At a random moment of a storm: whatever is found again is whole, and works."""
    chance = random.Random(seed)
    stop = threading.Event()

    def storm(number: int) -> None:
        client = victim.client()
        for turn in range(10_000):
            if stop.is_set():
                return
            try:
                name = f"c-{number}-{turn}"
                volumes = {f"v-{number}-{turn % 3}": "/v"}
                made = client.container("busybox", ["true"], name=name, volumes=volumes)
                made.start()
                client.run("busybox", ["sh", "-c", "echo x > /v/f"], volumes=volumes)
                if turn % 3 == 0:
                    made.wait()
                    made.remove()
            except SandboxError:
                return

    workers = [threading.Thread(target=storm, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(chance.uniform(0.05, 0.8))
    victim.kill()
    stop.set()
    for worker in workers:
        worker.join(30)
    victim.restart()
    with victim.client() as client:
        found = client.containers(all=True)
        assert victim.state("containers") <= {container.id for container in found}
        for container in found:
            assert container.inspect()["State"]["Status"] in ("created", "exited")
            container.start()
            assert container.wait(30) == 0
            container.remove()
        assert victim.state("containers") == set()
        assert {volume.name for volume in client.volumes()} == victim.state("volumes")
        for volume in client.volumes():
            volume.remove()
    assert victim.state("volumes") == set()
