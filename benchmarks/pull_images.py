"""Two images for docker-registry: five gzip layers made of this machine's files, and one layer.

The same machine gives the same bytes, so they are made once and kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from benchmarks.peers import docker_registry, found

FIVE, ONE = "layers:five", "layers:one"
"""REPOSITORY:TAG of the images."""

_MIB = 1 << 20
_LAYERS = (
    (("/usr/share", "/usr/bin"), 180 * _MIB),
    (("/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/x86_64-linux-gnu"), 260 * _MIB),
    (("/usr/include", "/usr/sbin", "/usr/libexec", "/usr/lib/postgresql"), 230 * _MIB),
    (("/usr/lib/gcc", "/usr/lib/git-core", "/usr/lib/file"), 150 * _MIB),
    (("/usr/lib/node_modules", "/usr/lib/cni", "/usr/lib/systemd"), 90 * _MIB),
)
"""Where a layer's files come from, and how many bytes of them it takes at most."""
_ONE_FILE_MAX = 32 * _MIB
_OCI = "application/vnd.oci.image"
_DIFF_ID = "diff-id"


@dataclass(frozen=True)
class Registry:
    """Debian's docker-registry, holding both images."""

    authority: str
    sizes: dict[str, tuple[int, int]]
    """Bytes of each image, compressed and as files."""

    def reference(self, image: str) -> str:
        return f"{self.authority}/{image}"


@contextlib.contextmanager
def registry(work: Path) -> Iterator[Registry]:
    """The registry, running; the layers are made before, if they are not in the cache."""
    found("docker-registry")
    layers = _layers(_cache())
    with docker_registry.running(work) as authority:
        sizes = {}
        for image, used in ((FIVE, layers), (ONE, layers[:1])):
            _push(authority, image, used)
            compressed = sum(layer.size for layer in used)
            sizes[image] = (compressed, sum(layer.unpacked for layer in used))
        yield Registry(authority, sizes)


@dataclass(frozen=True)
class _Layer:
    blob: Path
    digest: str
    size: int
    diff_id: str
    unpacked: int


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = Path(base) / "pytest-sandbox-benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _layers(cache: Path) -> list[_Layer]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(lambda number: _layer(cache, number), range(len(_LAYERS))))


def _layer(cache: Path, number: int) -> _Layer:
    facts, blob = cache / f"layer{number}.json", cache / f"layer{number}.tar.gz"
    if not facts.exists():
        roots, limit = _LAYERS[number]
        diff_id, unpacked = _write(blob, roots, limit)
        facts.write_text(
            json.dumps(
                {
                    "digest": _digest(blob),
                    "size": blob.stat().st_size,
                    _DIFF_ID: diff_id,
                    "unpacked": unpacked,
                }
            )
        )
    known = json.loads(facts.read_text())
    return _Layer(blob, known["digest"], known["size"], known[_DIFF_ID], known["unpacked"])


class _Hashing:
    """Passes an archive on to a pipe, and keeps its digest."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._hash = pipe, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._pipe.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _write(blob: Path, roots: Sequence[str], limit: int) -> tuple[str, int]:
    """Write the layer; its diffID and the bytes of its files."""
    with blob.open("wb") as target:
        # As most images in registries are: zlib's level 6.
        packer = subprocess.Popen(["gzip", "-6", "-n"], stdin=subprocess.PIPE, stdout=target)
        assert packer.stdin is not None
        sink = _Hashing(cast(BinaryIO, packer.stdin))
        with tarfile.open(fileobj=cast(Any, sink), mode="w|", format=tarfile.GNU_FORMAT) as tar:
            written = 0
            for path in _members(roots):
                written += _add(tar, path) if written < limit else 0
        packer.stdin.close()
        if packer.wait() != 0:
            raise RuntimeError("gzip failed")
    return sink.digest, written


def _members(roots: Sequence[str]) -> Iterator[Path]:
    parents = sorted({parent for root in roots for parent in Path(root).parents} - {Path("/")})
    yield from parents
    for root in roots:
        for directory, names, files in os.walk(root):
            names.sort()
            yield Path(directory)
            for name in sorted(files):
                yield Path(directory, name)


def _add(tar: tarfile.TarFile, path: Path) -> int:
    """Add a directory, link or file as root's, and return its bytes; anything else is left out."""
    try:
        member = tar.gettarinfo(path, arcname=str(path).lstrip("/"))
        if member is None or member.size > _ONE_FILE_MAX:
            return 0
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 1_700_000_000
        if member.islnk():
            member.type, member.size = tarfile.REGTYPE, path.stat().st_size
        if not member.isreg():
            tar.addfile(member)
            return 0
        with path.open("rb") as file:
            tar.addfile(member, file)
        return member.size
    except (FileNotFoundError, PermissionError):
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _push(authority: str, image: str, layers: Sequence[_Layer]) -> None:
    repository, _, tag = image.partition(":")
    registry = http.client.HTTPConnection(authority, blocksize=_MIB)
    for layer in layers:
        _upload(registry, repository, layer.digest, layer.blob)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    _upload(registry, repository, config_digest, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {
            "mediaType": f"{_OCI}.config.v1+json",
            "digest": config_digest,
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": f"{_OCI}.layer.v1.tar+gzip",
                "digest": layer.digest,
                "size": layer.size,
            }
            for layer in layers
        ],
    }
    headers = {"Content-Type": f"{_OCI}.manifest.v1+json"}
    target = f"/v2/{repository}/manifests/{tag}"
    _ask(registry, "PUT", target, json.dumps(manifest).encode(), headers)
    registry.close()


def _upload(
    registry: http.client.HTTPConnection, repository: str, digest: str, content: bytes | Path
) -> None:
    status, _ = _ask(registry, "HEAD", f"/v2/{repository}/blobs/{digest}", accept=(200, 404))
    if status == 200:
        return
    _, location = _ask(registry, "POST", f"/v2/{repository}/blobs/uploads/")
    target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    target = target.partition("://")[2].partition("/")[2]
    headers = {"Content-Type": "application/octet-stream"}
    if isinstance(content, bytes):
        _ask(registry, "PUT", f"/{target}", content, headers)
        return
    with content.open("rb") as file:
        headers["Content-Length"] = str(content.stat().st_size)
        _ask(registry, "PUT", f"/{target}", file, headers)


def _ask(
    registry: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | BinaryIO | None = None,
    headers: dict[str, str] | None = None,
    accept: Sequence[int] = (200, 201, 202),
) -> tuple[int, str]:
    """Status and Location."""
    registry.request(method, target, body, headers or {})
    answer = registry.getresponse()
    text = answer.read()
    if answer.status not in accept:
        raise RuntimeError(f"{method} {target}: {answer.status} {text[:300]!r}")
    return answer.status, answer.getheader("Location", "")
