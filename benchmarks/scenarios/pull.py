"""A cold pull from docker-registry on loopback: nothing of the image is there before.

Each run has a store of its own, on a file system of the benchmark's own where that can be, and
nothing is deleted before the end (see `benchmarks.journaled`). Ours includes the syncfs(2) that
publishes the layers; docker and podman sync nothing.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import pull_images, service
from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.consumption import cpu_seconds, peak_bytes
from benchmarks.leftovers import family
from benchmarks.peers import Absent, dockerd, podman
from benchmarks.pull_images import FIVE, ONE, Registry
from benchmarks.result import OURS, Goal, Result, Row
from benchmarks.unix_requests import BASE, session

DOCKER, PODMAN = "docker pull", "podman pull"
_MIB = 1 << 20
_TITLES = {FIVE: "5 gzip layers", ONE: "1 gzip layer"}
_FASTER = {FIVE: 3.5, ONE: 2.3}
_CPU, _MEMORY = ", CPU seconds", ", peak memory"


def measure(bench: Bench) -> Result:
    result = Result("pull", "cold pull of an image from docker-registry on loopback")
    try:
        registry = bench.stack.enter_context(pull_images.registry(bench.work))
    except Absent as absent:
        result.absent["docker-registry"] = str(absent)
        return result
    runs = _Runs(bench, registry, bench.disk)
    for image, title in _TITLES.items():
        compressed, unpacked = registry.sizes[image]
        note = f"{compressed / _MIB:.0f} MiB, {unpacked / _MIB:.0f} MiB unpacked"
        makers = {
            f"{name}, {title}": partial(runs.subject, f"{name}, {title}", pull, image, note)
            for name, pull in runs.engines().items()
        }
        subjects = present(result, makers)
        result.rows += alternate(subjects, 1 if bench.quick else 5, warm_up=0)
    result.rows += runs.rows()
    result.goals = [goal for image in _TITLES for goal in _goals(result, image)]
    ours = f"{OURS}, {_TITLES[FIVE]}{_MEMORY}"
    memory = result.median(ours)
    text = "MiB of memory for service and workers"
    result.goals.append(Goal(text, memory, 300.0 * 10**6 / _MIB, at_most=True))
    return result


def _goals(result: Result, image: str) -> Iterator[Goal]:
    title = _TITLES[image]
    peers = [f"{DOCKER}, {title}", f"{PODMAN}, {title}"]
    ours = result.median(f"{OURS}, {title}")
    walls = [median for peer in peers if (median := result.median(peer)) is not None]
    faster = min(walls) / ours if walls and ours else None
    text = f"times faster than the faster of docker and podman, {title}"
    yield Goal(text, faster, _FASTER[image], at_most=False)
    own = result.median(f"{OURS}, {title}{_CPU}")
    cpus = [median for peer in peers if (median := result.median(peer + _CPU)) is not None]
    share = own / min(cpus) if cpus and own else None
    yield Goal(f"of the CPU seconds of the thriftier, {title}", share, 0.25, at_most=True)


@dataclass
class _Used:
    cpu: float = 0.0
    memory: int = 0


Pull = Callable[[str, Path, _Used], float]
"""Pulls a reference with a store in an empty directory; the seconds it took."""


@dataclass
class _Runs:
    """Every run gets a directory of its own; what each used is kept beside its time."""

    bench: Bench
    registry: Registry
    disk: Path
    _serial: Iterator[int] = field(default_factory=itertools.count)
    _used: dict[str, list[_Used]] = field(default_factory=dict)

    def engines(self) -> dict[str, Pull]:
        return {OURS: self._ours, DOCKER: self._docker, PODMAN: self._podman}

    def subject(self, name: str, pull: Pull, image: str, note: str) -> Subject:
        """Raises Absent for an engine that is not there."""
        if pull == self._docker:
            _ = self.bench.daemon
        if pull == self._podman:
            podman.own_store(self.bench.work)
        reference = self.registry.reference(image)
        return Subject(name, lambda: self._run(name, pull, reference), note=note)

    def rows(self) -> list[Row]:
        cpu = [
            Row(name + _CPU, [each.cpu for each in used], "count")
            for name, used in self._used.items()
        ]
        memory = [
            Row(name + _MEMORY, [each.memory / _MIB for each in used], "MiB")
            for name, used in self._used.items()
        ]
        return [*cpu, *memory]

    def _run(self, name: str, pull: Pull, reference: str) -> float:
        directory = self.disk / f"{next(self._serial)}"
        directory.mkdir(mode=0o711)
        used = _Used()
        seconds = pull(reference, directory, used)
        self._used.setdefault(name, []).append(used)
        return seconds

    def _ours(self, reference: str, directory: Path, used: _Used) -> float:
        with service.started(directory) as running:
            self.bench.stack.callback(service.remove, directory)
            with _counted(running.pid, used):
                seconds = _api_pull(str(running.socket), reference)
            used.memory = peak_bytes([running.pid, *_workers(running.pid)])
            return seconds

    def _docker(self, reference: str, directory: Path, used: _Used) -> float:
        with dockerd.running(directory) as daemon:
            pid = int((directory / "dk" / "pid").read_text())
            with _counted(pid, used):
                seconds = _api_pull(daemon.host.removeprefix("unix://"), reference)
            used.memory = peak_bytes(family(pid))
            return seconds

    def _podman(self, reference: str, directory: Path, used: _Used) -> float:
        command = podman.own_store(directory)
        self.bench.stack.callback(podman.end, command, directory / "pod")
        argv = [*command, "pull", "-q", "--tls-verify=false", reference]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        redirect = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
        began = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=redirect)
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - began
        os.close(null)
        if status != 0:
            raise RuntimeError(f"podman pull ended with {os.waitstatus_to_exitcode(status)}")
        used.cpu = usage.ru_utime + usage.ru_stime
        used.memory = usage.ru_maxrss * 1024
        return seconds


@contextmanager
def _counted(pid: int, used: _Used) -> Iterator[None]:
    before = cpu_seconds(pid)
    yield
    used.cpu = cpu_seconds(pid) - before


def _workers(pid: int) -> list[int]:
    """The processes that our service has fetched layers with."""
    found = []
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"registry.worker" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def _api_pull(socket: str, reference: str) -> float:
    """POST /images/create, the whole answer read."""
    client = session(socket)
    began = time.perf_counter()
    answer = client.post(f"{BASE}/images/create", params={"fromImage": reference})
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    assert "errorDetail" not in answer.text, answer.text
    return seconds
