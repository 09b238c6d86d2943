"""A container that has written 100 MB becomes an image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.result import OURS, Goal, Result
from benchmarks.rootfs import IMAGE
from benchmarks.unix_requests import BASE, session

DOCKER = "docker commit"
_WRITE = (
    "mkdir /data; for i in $(seq 100); do "
    "dd if=/dev/urandom of=/data/$i bs=1000000 count=1 2>/dev/null; done"
)


def measure(bench: Bench) -> Result:
    result = Result("commit", "POST /commit of a container that has written 100 files of 1 MB")
    peers = {
        OURS: lambda: _subject(OURS, str(bench.image_service.socket)),
        DOCKER: lambda: _subject(DOCKER, bench.image_daemon.host.removeprefix("unix://")),
    }
    result.rows = alternate(present(result, peers), bench.rounds(20), warm_up=1)
    goal = result.ratio(DOCKER, OURS)
    result.goals = [Goal("times faster than docker commit", goal, 3.0, at_most=False)]
    return result


def _subject(name: str, path: str) -> Subject:
    """The same requests to both services; the image is removed again, which is not timed."""
    client = session(path)

    def call(method: str, target: str, **options: Any) -> Any:
        answer = client.request(method, f"{BASE}{target}", **options)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    body = {"Image": IMAGE, "Cmd": ["sh", "-c", _WRITE], "HostConfig": {"NetworkMode": "none"}}
    container = call("POST", "/containers/create", json=body)["Id"]
    call("POST", f"/containers/{container}/start")
    ended = call("POST", f"/containers/{container}/wait")
    assert ended["StatusCode"] == 0, ended
    return Subject(name, _timed(call, container), note="API, client: requests")


def _timed(call: Callable[..., Any], container: str) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        image = call("POST", f"/commit?container={container}&repo=committed&tag=1")["Id"]
        took = time.perf_counter() - began
        call("DELETE", f"/images/{image}?force=1")
        return took

    return run
