"""kill -9 of a client: what it made under its lease is gone, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

_CLIENT = """
import sys, time
from pytest_sandbox import connect
client = connect(sys.argv[1], autostart=False)
volume = client.volume("leased-volume")
for number in range(3):
    client.container("busybox", ["sleep", "1000"], volumes={"leased-volume": "/v"}).start()
client.container("busybox", ["true"])
print("made", flush=True)
client.run("busybox", ["sleep", "1000"])
"""


def test_everything_made_under_the_lease_goes(victim: Any, watch: Any) -> None:
    wanted = {"event": ["start", "destroy"]}
    with victim.client() as other, other.events(filters=wanted) as events:
        kept = other.container("busybox", ["sleep", "1000"]).start()
        client = subprocess.Popen(
            [sys.executable, "-c", _CLIENT, victim.service.host], stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"made\n"
        for _ in range(5):
            assert next(events)["Action"] == "start"
        processes = [watch(each) for each in other.containers() if each.id != kept.id]
        assert len(processes) == 4
        client.kill()
        client.wait()
        assert all(process.ends() for process in processes)
        gone = [next(events) for _ in range(6)]
        assert {(event["Type"], event["Action"]) for event in gone} == {
            ("container", "destroy"),
            ("volume", "destroy"),
        }
        assert [each.id for each in other.containers(all=True)] == [kept.id]
        assert other.volumes() == []
        assert kept.status == "running"
        assert victim.state("containers") == {kept.id}
        client.stdout.close()
