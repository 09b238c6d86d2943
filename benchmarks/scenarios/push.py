"""An image that was never pushed goes to an empty registry."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.alternate import Subject, alternate
from benchmarks.bench import Bench, present
from benchmarks.peers import docker_registry, found
from benchmarks.result import OURS, Goal, Result
from benchmarks.unix_requests import BASE, session

DOCKER = "docker push"
_ROOTS = ("/usr/bin", "/usr/lib/python3", "/usr/share/doc", "/usr/lib/x86_64-linux-gnu")
_LAYER = 40_000_000
"""Bytes of files in each layer."""
_ONE_FILE_MAX = 8_000_000
_NO_CREDENTIALS = {"X-Registry-Auth": "e30="}


def measure(bench: Bench) -> Result:
    result = Result("push", "push of an image of 160 MB in 4 layers to an empty docker-registry")
    images = _Images()

    def ours() -> Subject:
        found("docker-registry")
        return Subject(OURS, _pushing(bench, str(bench.image_service.socket), images), note=_NOTE)

    def docker() -> Subject:
        path = bench.image_daemon.host.removeprefix("unix://")
        return Subject(DOCKER, _pushing(bench, path, images), note=_NOTE)

    subjects = present(result, {OURS: ours, DOCKER: docker})
    result.rows = alternate(subjects, bench.rounds(10), warm_up=0)
    faster = result.ratio(DOCKER, OURS)
    result.goals = [Goal("times faster than docker push", faster, 1.0, at_most=False)]
    return result


_NOTE = "API, client: requests"


def _pushing(bench: Bench, path: str, images: _Images) -> Callable[[], float]:
    """Load another image, start a registry, push; the push alone is timed."""
    client = session(path)

    def call(method: str, target: str, **options: Any) -> str:
        answer = client.request(method, f"{BASE}{target}", **options)
        assert answer.status_code < 300, answer.text
        assert '"errorDetail"' not in answer.text, answer.text
        return answer.text

    def run() -> float:
        call("POST", "/images/load?quiet=1", data=images.another("pushed:1"))
        with docker_registry.running(bench.work) as authority:
            name = f"{authority}/pushed"
            call("POST", f"/images/pushed:1/tag?repo={name}&tag=1")
            began = time.perf_counter()
            call("POST", f"/images/{name}/push?tag=1", headers=_NO_CREDENTIALS)
            took = time.perf_counter() - began
        for tag in (f"{name}:1", "pushed:1"):
            call("DELETE", f"/images/{tag}?force=1")
        return took

    return run


class _Images:
    """Archives of images that have the same files and not one layer in common."""

    def __init__(self) -> None:
        self._serial = itertools.count()

    @cached_property
    def _files(self) -> Sequence[bytes]:
        return [_members(root) for root in _ROOTS]

    def another(self, tag: str) -> bytes:
        number = next(self._serial)
        mark = {"name": "mark", "data": str(number).encode()}
        layers = [_archive([mark]) + members for members in self._files]
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        text = json.dumps(config).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        names = [f"{place}/layer.tar" for place in range(len(layers))]
        manifest = [{"Config": name, "RepoTags": [tag], "Layers": names}]
        parts = {name: text, "manifest.json": json.dumps(manifest).encode()}
        parts |= dict(zip(names, layers, strict=True))
        return _archive([{"name": key, "data": data} for key, data in parts.items()]) + bytes(1024)


def _archive(members: Sequence[dict[str, Any]]) -> bytes:
    """A tar archive without its end."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member["name"])
            info.size = len(member["data"])
            archive.addfile(info, io.BytesIO(member["data"]))
        end = archive.offset
    return buffer.getvalue()[:end]


def _members(root: str) -> bytes:
    """Files of this machine, as the rest of an archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        size = 0
        for path in _paths(root):
            info = tarfile.TarInfo(str(path).lstrip("/"))
            data = path.read_bytes()
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
            size += len(data)
            if size >= _LAYER:
                break
    return buffer.getvalue()


def _paths(root: str) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _ONE_FILE_MAX:
                yield path
