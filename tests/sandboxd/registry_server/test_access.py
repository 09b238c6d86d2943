"""Who is let in, and where the registry refuses to listen."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxd.errors import BadRequest, Forbidden
from sandboxd.registry import Options, listeners, settings_of
from sandboxd.registry_server.access import Access
from sandboxd.registry_server.faults import Fault
from sandboxd.registry_server.passwords import Password
from tests.sandboxd.registry_server.conftest import Wire, digest_of

if TYPE_CHECKING:
    from tests.conftest import Registry

pytestmark = pytest.mark.needs_userns

WRITER, READER = "w" * 32, "r" * 32
BCRYPT = "$2y$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu"
"""Of `wonderland`."""


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A registry with two tokens and a user."""
    from tests.conftest import Registry

    base = tmp_path_factory.mktemp("locked")
    (base / "tokens").write_text(f"# of the build machines\n{WRITER}\n\n{READER} read\n")
    (base / "users").write_text(f"alice:{BCRYPT}\n")
    options = ["--token-file", str(base / "tokens"), "--htpasswd", str(base / "users")]
    running = Registry(base / "state", *options)
    running.root.mkdir(mode=0o700)
    running.start()
    yield Wire(running.address)
    assert running.stop() == 0, running.log.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("", ""),
        basic("alice", "wrong"),
        basic("nobody", "wonderland"),
        basic("alice", "wonderland" * 100),
        basic("alice", "wonder\0land"),
        bearer("x" * 32),
        bearer(""),
        {"Authorization": "Basic ===="},
        {"Authorization": "Basic"},
        {"Authorization": f"Digest {WRITER}"},
        {"Authorization": WRITER},
        {"Authorization": f"Bearer {WRITER} {WRITER}"},
    ],
)
def test_strangers_are_asked_who_they_are(locked: Wire, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("POST", "/v2/a/blobs/uploads/"),
    ):
        refused = locked(method, path, headers=headers)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert refused.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "headers",
    [bearer(WRITER), basic("anybody", WRITER), basic("", WRITER), basic("alice", "wonderland")],
)
def test_who_may_write(locked: Wire, headers: dict[str, str]) -> None:
    for _ in range(2):
        assert locked("GET", "/v2/", headers=headers).status == 200
        assert locked("POST", "/v2/a/blobs/uploads/", headers=headers).status == 202


@pytest.mark.parametrize("headers", [bearer(READER), basic("anybody", READER)])
def test_who_may_read_only(locked: Wire, headers: dict[str, str]) -> None:
    assert locked("GET", "/v2/_catalog", headers=headers).status == 200
    digest = digest_of(b"")
    for method, path in (
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/v1"),
        ("DELETE", "/v2/a/manifests/v1"),
        ("DELETE", f"/v2/a/blobs/{digest}"),
        ("GET", "/v2/a/blobs/uploads/00000000-0000-0000-0000-000000000000"),
    ):
        refused = locked(method, path, b"", headers)
        assert (refused.status, refused.code) == (403, "DENIED")


def test_a_token_is_worth_what_its_line_says_even_where_it_comes_twice() -> None:
    access = Access(users={"alice": Password.parse(BCRYPT)})
    access.check(basic("alice", "wonderland")["Authorization"], writes=True)
    access.check(basic("alice", "wonderland")["Authorization"], writes=True)
    with pytest.raises(Fault) as refused:
        access.check(basic("alice", "Wonderland")["Authorization"], writes=False)
    assert refused.value.status == 401


@pytest.mark.parametrize("registry", [["--read-only"]], indirect=True)
def test_read_only(registry: Registry) -> None:
    wire = Wire(registry.address)
    assert wire("GET", "/v2/_catalog").json == {"repositories": []}
    for method, path in (
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/v1"),
        ("DELETE", "/v2/a/manifests/v1"),
    ):
        refused = wire(method, path, b"")
        assert (refused.status, refused.code) == (405, "UNSUPPORTED")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1:5000", "", "[::2]"])
def test_a_web_page_cannot_get_in_by_a_name_of_its_own(shared: Wire, host: str) -> None:
    refused = shared("GET", "/v2/_catalog", headers={"Host": host})
    assert (refused.status, refused.code) == (403, "DENIED")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:5"]
)
def test_loopback_names_are_answered(shared: Wire, host: str) -> None:
    assert shared("GET", "/v2/", headers={"Host": host}).status == 200


def listen(address: str, **options: Any) -> str:
    """What clients would call a registry that listens at the address."""
    asked = Options(address, **options)
    with ExitStack() as held:
        return listeners(asked, settings_of(asked), held)[1]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.invalid:0"])
def test_it_does_not_listen_where_others_could_write(address: str) -> None:
    with pytest.raises(Forbidden, match="whoever reaches it could write") as refused:
        listen(address)
    assert "--token-file FILE, --htpasswd FILE or --read-only" in refused.value.mend


def test_it_listens_elsewhere_with_tokens_or_for_readers(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{WRITER}\n")
    assert listen("0.0.0.0:0", read_only=True).startswith("http://0.0.0.0:")
    assert listen("0.0.0.0:0", token_file=tmp_path / "tokens").startswith("http://0.0.0.0:")


NO_ADDRESSES = ["", "5000", "localhost", "a:b", ":5000", "127.0.0.1:99999", "unix:x", "[::1]"]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(BadRequest, match="--listen"):
        listen(address)


def test_a_port_that_is_taken(registry: Registry, service_directory: Path) -> None:
    command = [sys.executable, "-m", "sandboxd", "registry", "--listen", registry.address]
    environ = {**os.environ, "SANDBOX_ROOT": str(service_directory / "state")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "nobody is in it"),
        ("# nobody\n", "nobody is in it"),
        ("short\n", "can be guessed"),
        (f"{WRITER} admin\n", "line 1: 'admin' is neither read nor write"),
    ],
)
def test_token_files_that_cannot_be_used(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(BadRequest, match=complaint):
        Access.load(read_only=False, token_file=tmp_path / "tokens", htpasswd=None)


@pytest.mark.parametrize(
    "hashed",
    ["plain", "$apr1$abc$def", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "$2y$04$short", ""],
)
def test_password_files_that_cannot_be_used(tmp_path: Path, hashed: str) -> None:
    (tmp_path / "users").write_text(f"bob:{BCRYPT}\nalice:{hashed}\n")
    with pytest.raises(BadRequest, match="line 2: its hash"):
        Access.load(read_only=False, token_file=None, htpasswd=tmp_path / "users")


@pytest.mark.parametrize(
    "hashed",
    [BCRYPT, "$6$saltsalt$" + "x" * 86],
)
def test_hashes_that_this_machine_verifies(hashed: str) -> None:
    password = Password.parse(hashed)
    assert password.matches("wonderland") == (hashed == BCRYPT)
    assert not password.matches("")


def test_over_a_unix_socket(service_directory: Path) -> None:
    import http.client
    import socket

    from tests.conftest import Registry

    path = service_directory / "own" / "registry.sock"
    running = Registry(service_directory / "state", listen=f"unix://{path}")
    running.start()
    try:
        assert running.url == f"unix://{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        connection = http.client.HTTPConnection("registry")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/v2/")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        assert running.stop() == 0
    assert not path.exists()


@pytest.mark.needs_openssl
def test_over_tls(service_directory: Path) -> None:
    import http.client
    import ssl

    from tests.conftest import Registry

    key, certificate = service_directory / "key.pem", service_directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    options = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    running = Registry(service_directory / "state", *options)
    running.start()
    try:
        assert running.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(running.address, context=context)
        data = bytes(range(256)) * 9000
        target = f"/v2/a/blobs/uploads/?digest={digest_of(data)}"
        connection.request("POST", target, data)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, b"")
        connection.request("GET", f"/v2/a/blobs/{digest_of(data)}")
        assert connection.getresponse().read() == data
        connection.close()
    finally:
        assert running.stop() == 0
