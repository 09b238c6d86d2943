"""Start a container that stays, run a command in it, remove it: what a test's fixture does."""

from __future__ import annotations

from benchmarks.alternate import Subject, alternate, timed
from benchmarks.bench import Bench, present
from benchmarks.peers import testcontainers
from benchmarks.result import OURS, Goal, Result
from benchmarks.rootfs import IMAGE
from benchmarks.service import Service


def measure(bench: Bench) -> Result:
    result = Result("lifecycle", "start + exec + remove")
    peers = {
        testcontainers.NAME: lambda: testcontainers.start_exec_remove(
            testcontainers.NAME, bench.daemon.host, every=4
        ),
        testcontainers.NAME_ON_OURS: lambda: testcontainers.start_exec_remove(
            testcontainers.NAME_ON_OURS, bench.service.host
        ),
    }
    subjects = [_ours(bench.service), *present(result, peers)]
    result.rows = alternate(subjects, bench.rounds(100), warm_up=2)
    speedup = result.ratio(testcontainers.NAME, OURS)
    result.goals = [Goal("times faster than testcontainers on dockerd", speedup, 40, at_most=False)]
    return result


def _ours(service: Service) -> Subject:
    client = service.connect()

    def run() -> None:
        with client.container(IMAGE, ["sleep", "1000"]) as container:
            container.start()
            assert container.exec(["/bin/true"]).exit_code == 0

    return Subject(OURS, timed(run), note="API, own client")
