"""Credentials for registries as the docker command keeps them, for both sides of the socket.

`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`: `credHelpers`, then `credsStore`, then
`auths` (https://docs.docker.com/reference/cli/docker/login/#credential-stores). A helper is a
program `docker-credential-NAME` that gets the server on its standard input:
https://github.com/docker/docker-credential-helpers. Nothing of it is ever logged or shown.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

from sandboxd.errors import BadRequest, HostLacks, SandboxError

HUB: Final = "docker.io"
_HUB_KEY: Final = "https://index.docker.io/v1/"
HUB_SERVERS: Final = ("index.docker.io", "registry-1.docker.io")
"""Other names of Docker Hub."""
_TOKEN_USER: Final = "<token>"
"""The user name with which a helper hands out an identity token."""
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_HELPER_SECONDS: Final = 30.0
_SIZE_MAX: Final = 1 << 20
"""Bytes of the configuration, and of a helper's answer."""
_NOT_FOUND: Final = "credentials not found"


class Credentials(NamedTuple):
    """A user name and password, or an identity token that stands for both."""

    username: str
    password: str
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"<Credentials of {self.username or 'a token'}>"


def domain_of(reference: str) -> str:
    """The registry that an image's name is about: `docker.io` where it names none.

    The first component is a registry only if it has a dot, a colon or an upper-case letter, or is
    `localhost`: https://github.com/distribution/reference.
    """
    first, slash, _ = reference.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not (slash and is_domain):
        return HUB
    return HUB if first in HUB_SERVERS else first


def credentials_for(domain: str, path: Path | None = None) -> Credentials | None:
    """What the docker command would log in with at this registry; None for nobody.

    Raises BadRequest for a configuration that is damaged, HostLacks for a helper that is missing
    or fails: going on as nobody would hide the reason for the refusal that follows.
    """
    path = path or _default_path()
    config = _loaded(path)
    helpers = config.get("credHelpers")
    helper = helpers.get(_key(domain)) if isinstance(helpers, dict) else None
    if helper is None and isinstance(helpers, dict):
        helper = helpers.get(domain)
    if helper:
        return _from_helper(str(helper), _key(domain))
    if config.get("credsStore"):
        return _from_helper(str(config["credsStore"]), _key(domain))
    return _from_auths(config.get("auths"), domain, path)


def _default_path() -> Path:
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return Path(directory) / "config.json"


def _loaded(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SandboxError.from_os("read the docker configuration", error) from error
    try:
        config = json.loads(data) if len(data) <= _SIZE_MAX else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise BadRequest(f"{path}", "it is no JSON object", "docker login writes a new one")
    return config


def _key(domain: str) -> str:
    return _HUB_KEY if domain == HUB else domain


def _from_auths(auths: object, domain: str, path: Path) -> Credentials | None:
    """The entry for the registry, whose key may be a host or a URL."""
    if not isinstance(auths, dict):
        return None
    names = {domain, *(HUB_SERVERS if domain == HUB else ())}
    found = auths.get(_key(domain))
    for key, entry in auths.items():
        if found is None and _host_of(str(key)) in names:
            found = entry
    if not isinstance(found, dict):
        return None
    mend = f"docker login {domain}"
    username, password = str(found.get("username", "")), str(found.get("password", ""))
    if found.get("auth"):
        try:
            decoded = base64.b64decode(str(found["auth"]), validate=True).decode()
        except (binascii.Error, ValueError):
            raise BadRequest(f"{path}", f"its auth of {domain} is no base64", mend) from None
        username, _, password = decoded.rstrip("\0").partition(":")
    token = str(found.get("identitytoken", ""))
    return Credentials(username, password, token) if username or token else None


def _host_of(key: str) -> str:
    return key.partition("://")[2].partition("/")[0] or key.partition("/")[0]


def _from_helper(name: str, server: str) -> Credentials | None:
    program = f"docker-credential-{name}"
    if not _HELPER_NAME.fullmatch(name):
        raise BadRequest(f"credential helper {name[:40]!r}", "not the name of a program")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS
        )
    except FileNotFoundError:
        mend = f"install {program}, or remove it from ~/.docker/config.json"
        raise HostLacks(program, "it is not on PATH", mend) from None
    except subprocess.TimeoutExpired:
        raise HostLacks(program, f"no answer after {_HELPER_SECONDS:.0f} s") from None
    except OSError as error:
        raise HostLacks(program, str(error)) from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout.decode(errors="replace").lower():
            return None
        # What a helper prints may hold secrets: only its status is told.
        raise HostLacks(program, f"it ended with status {done.returncode}", f"{program} get")
    return _parsed_answer(program, done.stdout)


def _parsed_answer(program: str, data: bytes) -> Credentials | None:
    try:
        answer = json.loads(data) if len(data) <= _SIZE_MAX else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise HostLacks(program, "its answer is no JSON object")
    username, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    if username == _TOKEN_USER:
        return Credentials("", "", secret)
    return Credentials(username, secret) if username or secret else None
