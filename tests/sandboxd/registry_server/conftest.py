"""A client that speaks plain HTTP, so that the tests see what the specification talks about."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Registry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the one error."""
        (error,) = self.json["errors"]
        return str(error["code"])


@dataclass
class Wire:
    """Requests to one registry, each on a connection of its own."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def upload(self, repository: str) -> str:
        """The location of a new upload."""
        started = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert started.status == 202, started
        return started.headers["location"]

    def push_blob(self, repository: str, data: bytes) -> str:
        """Push in one request; the digest."""
        digest = digest_of(data)
        pushed = self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert pushed.status == 201, pushed
        return digest

    def push_manifest(
        self, repository: str, which: str, document: Mapping[str, Any], media_type: str = ""
    ) -> Answer:
        """Push a manifest; `which` may be `{digest}`."""
        raw = json.dumps(document).encode()
        kind = media_type or str(document["mediaType"])
        path = f"/v2/{repository}/manifests/{which.format(digest=digest_of(raw))}"
        return self("PUT", path, raw, {"Content-Type": kind})

    def push_image(self, repository: str, tag: str, **more: Any) -> str:
        """Push a small image of a config and a layer; the manifest's digest."""
        document = image(self, repository, **more)
        pushed = self.push_manifest(repository, tag, document)
        assert pushed.status == 201, pushed
        return pushed.headers["docker-content-digest"]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(data: bytes, media_type: str = OCI_LAYER) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def image(wire: Wire, repository: str, layer: bytes = b"a layer", **more: Any) -> dict[str, Any]:
    """The manifest of an image whose blobs are in the repository."""
    config = b'{"architecture":"amd64","os":"linux"}'
    for blob in (config, layer):
        wire.push_blob(repository, blob)
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, OCI_CONFIG),
        "layers": [described(layer)],
        **more,
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One registry for the tests of a module, each of which uses repositories of its own."""
    from tests.conftest import Registry

    running = Registry(tmp_path_factory.mktemp("registry") / "state")
    running.root.mkdir(mode=0o700)
    running.start()
    yield Wire(running.address)
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A name of this test's own."""
    return "tests/" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def wire(registry: Registry) -> Wire:
    """Requests to a registry that this test alone uses."""
    return Wire(registry.address)
