"""A registry that does what a test tells it: for faults that a real one will not commit.

It serves manifests and blobs from dictionaries. `script` may put a function in front of any
request; what that returns is sent instead, byte for byte if need be.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OCI = "application/vnd.oci.image"
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"
CONFIG, LAYER = f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Reply:
    """What is sent back. `cut` ends the connection after so many bytes of the body; a `length`
    that is given is what Content-Length claims."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None


Script = Callable[[Asked], Reply | None]


class ScriptedRegistry:
    """Listens on loopback; `authority` is what references to it begin with."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """Media type and bytes, by tag and by digest."""
        self.scripts: list[Script] = []
        self.asked: list[Asked] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def script(self, script: Script) -> None:
        """Ask this function first, before those that are there."""
        self.scripts.insert(0, script)

    def paths(self, part: str = "") -> list[str]:
        """The paths that were asked for, in order, that contain `part`."""
        return [asked.path for asked in self.asked if part in asked.path]

    def add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Serve a blob; its descriptor."""
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def add_manifest(
        self, document: Any, tag: str = "", media_type: str = MANIFEST
    ) -> dict[str, Any]:
        """Serve a manifest by its digest, and by a tag; its descriptor."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.manifests[digest(raw)] = (media_type, raw)
        if tag:
            self.manifests[tag] = (media_type, raw)
        return {"mediaType": media_type, "digest": digest(raw), "size": len(raw)}

    def add_image(
        self,
        *layers: bytes,
        tag: str = "1",
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0),
        suffix: str = "+gzip",
        diff_ids: list[str] | None = None,
        **config: Any,
    ) -> dict[str, Any]:
        """Serve an image of uncompressed layers; the document of its manifest."""
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": diff_ids or [digest(layer) for layer in layers],
            },
            **config,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add_blob(json.dumps(document).encode(), CONFIG),
            "layers": [self.add_blob(compress(layer), LAYER + suffix) for layer in layers],
        }
        self.add_manifest(manifest, tag)
        return manifest

    def answer(self, asked: Asked) -> Reply:
        for script in list(self.scripts):
            if (reply := script(asked)) is not None:
                return reply
        kind, _, which = asked.path.rpartition("/")
        if asked.path.rstrip("/") == "/v2":
            return Reply(body=b"{}")
        if kind.endswith("/manifests") and which in self.manifests:
            media_type, raw = self.manifests[which]
            headers = {"Content-Type": media_type, "Docker-Content-Digest": digest(raw)}
            return Reply(body=raw, headers=headers)
        if kind.endswith("/blobs") and which in self.blobs:
            return partial(asked, self.blobs[which])
        return Reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"what is that"}]}')


def partial(asked: Asked, blob: bytes) -> Reply:
    """A blob, or the part of it that the request's Range wants: `bytes=N-`."""
    wanted = asked.headers.get("range", "")
    if not wanted:
        return Reply(body=blob)
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    headers = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}
    return Reply(206, blob[start:], headers)


def on(part: str, *replies: Reply) -> Script:
    """Give these replies, one after another, to requests whose path contains `part`; then none."""
    waiting = list(replies)
    return lambda asked: waiting.pop(0) if part in asked.path and waiting else None


def always(part: str, reply: Reply) -> Script:
    """Give this reply to every request whose path contains `part`."""
    return lambda asked: reply if part in asked.path else None


class _Server(http.server.ThreadingHTTPServer):
    registry: ScriptedRegistry
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to report."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        registry = self.server.registry
        registry.asked.append(asked)
        reply = registry.answer(asked)
        self.send_response(reply.status)
        size = len(reply.body) if reply.length is None else reply.length
        for name, value in {"Content-Length": str(size), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
        if reply.cut is not None or size != len(reply.body):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
