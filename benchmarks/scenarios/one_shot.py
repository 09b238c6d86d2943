"""One /bin/true in a container made from an image, gone afterwards."""

from __future__ import annotations

import json

from benchmarks.alternate import Subject, alternate, back_to_back, timed
from benchmarks.bench import Bench, present
from benchmarks.peers import bwrap, dockerd, floor, podman, runc
from benchmarks.result import OURS, Goal, Result, Row
from benchmarks.rootfs import IMAGE
from benchmarks.service import Service
from benchmarks.unix_requests import BASE, session

OURS_OWN_CLIENT = f"{OURS}, own client"
_LOOP_SECONDS = 5.0


def measure(bench: Bench) -> Result:
    result = Result("one-shot", "one-shot /bin/true in a busybox image")
    ours = by_requests(bench.service)
    subjects = [ours, _by_own_client(bench.service)]
    peers = {
        floor.NAME: lambda: bench.enter(floor.one_shot(bench.work, bench.rootfs)),
        bwrap.NAME: lambda: bwrap.one_shot(bench.rootfs),
        runc.NAME: lambda: runc.one_shot(bench.work, bench.rootfs),
        podman.NAME: lambda: bench.enter(podman.one_shot(bench.work, bench.archive)),
        dockerd.NAME: lambda: dockerd.one_shot(bench.daemon),
    }
    subjects += present(result, peers)
    result.rows = alternate(subjects, bench.rounds(200), warm_up=3)
    rate = back_to_back(ours.run, 1 if bench.quick else _LOOP_SECONDS)
    result.rows.append(Row(f"{OURS}, closed loop", [rate], "per s", "one in flight, no pause"))
    result.goals = [
        Goal("times the C floor", result.ratio(OURS, floor.NAME), 2.5, at_most=True),
        Goal("times bwrap --unshare-all", result.ratio(OURS, bwrap.NAME), 1.0, at_most=True),
    ]
    return result


def by_requests(service: Service) -> Subject:
    """POST /sandbox/run on a kept connection, as any HTTP client would send it."""
    client = session(str(service.socket))
    body = json.dumps({"Image": IMAGE, "Cmd": ["/bin/true"]})
    headers = {"Content-Type": "application/json"}

    def run() -> None:
        answer = client.post(f"{BASE}/sandbox/run", data=body, headers=headers)
        assert answer.json()["ExitCode"] == 0, answer.text

    return Subject(OURS, timed(run), note="API, client: requests")


def _by_own_client(service: Service) -> Subject:
    client = service.connect()

    def run() -> None:
        assert client.run(IMAGE, ["/bin/true"]).exit_code == 0

    return Subject(OURS_OWN_CLIENT, timed(run), note="pytest_sandbox.connect().run")
