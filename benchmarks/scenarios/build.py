"""A Dockerfile of six steps: every step anew, and every step from the cache.

The same request with the same archive goes to both services; beside it each one's own client, as
its users call it, where ours sends no archive.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.alternate import Subject, alternate, timed
from benchmarks.bench import Bench, present
from benchmarks.peers import Absent, command, found
from benchmarks.result import OURS, Goal, Result
from benchmarks.rootfs import IMAGE
from benchmarks.unix_requests import BASE, session

DOCKER = "docker build (classic)"
BUILDAH = "buildah build"
_OWN = ", own client"
_COLD, _CACHED = ", no cache", ", all cached"
_DOCKERFILE = f"""\
FROM {IMAGE}
ENV MODE=test
RUN echo one > /one
COPY src /app/
RUN ls /app | wc -l > /count
WORKDIR /app
RUN mkdir -p /var/lib/app && echo two > /var/lib/app/two
CMD ["cat", "/count"]
"""
_FILES = 200


def measure(bench: Bench) -> Result:
    result = Result("build", "a Dockerfile with 3 RUN and a COPY of 200 files: cold, and cached")
    context = _context(bench.work / "context")
    for kind, rounds in ((_COLD, 10), (_CACHED, 30)):
        subjects = present(result, _peers(bench, context, kind))
        result.rows += alternate(subjects, bench.rounds(rounds), warm_up=1)
    cold_times = result.ratio(DOCKER + _OWN + _COLD, OURS + _OWN + _COLD)
    share = result.ratio(OURS + _OWN + _CACHED, DOCKER + _OWN + _CACHED)
    result.goals = [
        Goal("times faster than docker, no cache, own clients", cold_times, 20, at_most=False),
        Goal("of docker's time, all cached, own clients", share, 0.05, at_most=True),
    ]
    return result


def _peers(bench: Bench, context: Path, kind: str) -> dict[str, Callable[[], Subject]]:
    cold = kind == _COLD
    return {
        OURS + kind: lambda: _by_request(
            OURS + kind, str(bench.image_service.socket), context, cold
        ),
        OURS + _OWN + kind: lambda: _by_own_client(bench, context, kind, cold),
        DOCKER + kind: lambda: _by_request(
            DOCKER + kind, bench.image_daemon.host.removeprefix("unix://"), context, cold
        ),
        DOCKER + _OWN + kind: lambda: _by_docker(bench, context, kind, cold),
        BUILDAH + kind: lambda: _by_buildah(bench, context, kind, cold),
    }


def _context(directory: Path) -> Path:
    source = directory / "src"
    source.mkdir(parents=True)
    for number in range(_FILES):
        (source / f"{number}.py").write_text(f"VALUE = {number}\n" * (number + 1))
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    return directory


def _archive(context: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(context.rglob("*")):
            tar.add(path, str(path.relative_to(context)), recursive=False)
    return buffer.getvalue()


def _by_request(name: str, path: str, context: Path, cold: bool) -> Subject:
    client, data = session(path), _archive(context)
    target = f"{BASE}/build?t=bench:1&networkmode=none&rm=1{'&nocache=1' if cold else ''}"
    headers = {"Content-Type": "application/x-tar"}

    def run() -> None:
        answer = client.post(target, data=data, headers=headers)
        assert "Successfully built" in answer.text, answer.text[-500:]

    return Subject(name, timed(run), note="POST /build, client: requests")


def _by_own_client(bench: Bench, context: Path, kind: str, cold: bool) -> Subject:
    client = bench.image_service.connect()

    def run() -> None:
        client.build(context, tag="bench:2", no_cache=cold)

    return Subject(OURS + _OWN + kind, timed(run), note="pytest_sandbox.connect().build")


def _by_docker(bench: Bench, context: Path, kind: str, cold: bool) -> Subject:
    argv = [
        bench.image_daemon.cli,
        "-H",
        bench.image_daemon.host,
        "build",
        "-q",
        "--network",
        "none",
    ]
    argv += ["-t", "bench:3", *(["--no-cache"] if cold else []), str(context)]
    return Subject(DOCKER + _OWN + kind, command(argv), note="the docker command")


def _by_buildah(bench: Bench, context: Path, kind: str, cold: bool) -> Subject:
    """Its image is imported by `buildah from scratch`; isolation chroot is its fastest."""
    store = bench.disk / "bah"
    base = [found("buildah"), "--root", str(store), "--runroot", str(bench.work / "bahr")]
    base += ["--storage-driver", "overlay"]
    if not store.exists():
        made = subprocess.run([*base, "from", "scratch"], capture_output=True, text=True)
        steps = [["add", made.stdout.strip(), str(bench.archive), "/"],
                 ["commit", made.stdout.strip(), f"localhost/{IMAGE}"]]  # fmt: skip
        for step in steps:
            if subprocess.run([*base, *step], capture_output=True).returncode:
                shutil.rmtree(store, ignore_errors=True)
                raise Absent("buildah cannot make an image here")
    argv = [*base, "build", "-q", "--isolation", "chroot", "--network", "host"]
    argv += ["--layers", "-t", "bench:4", *(["--no-cache"] if cold else []), str(context)]
    return Subject(BUILDAH + kind, command(argv))
