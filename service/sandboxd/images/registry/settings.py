"""How each registry is reached: `$XDG_CONFIG_HOME/sandboxd/registries.toml`.

```toml
[network]                       # for all of them
attempts = 5                    # of one request, the first included
timeout = 60.0                  # seconds without a byte
backoff = 0.25                  # seconds before the second attempt; doubled each time

[registry."docker.io"]
mirrors = ["https://mirror.example"]        # asked first, without this registry's credentials

[registry."registry.example:5000"]
plain-http = true               # otherwise only loopback addresses are reached without TLS
ca-file = "/etc/ssl/own-ca.pem" # trusted besides the system's
token-hosts = ["auth.example"]  # may see the credentials, besides hosts of the same domain
```

`$SANDBOX_REGISTRIES` names another file. Without one everything has its default.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from sandboxd.docker_config import HUB
from sandboxd.errors import BadRequest, SandboxError

_HUB_SERVER: Final = "registry-1.docker.io"
_KEYS: Final = {"mirrors": list, "plain-http": bool, "ca-file": str, "token-hosts": list}
_NETWORK_KEYS: Final = {"attempts": int, "timeout": (int, float), "backoff": (int, float)}


class Endpoint(NamedTuple):
    """One server that holds a registry's images; `url` has no slash at its end."""

    url: str
    domain: str
    """Whose credentials are good there: the registry's name, or a mirror's host."""
    plain_http: bool
    ca_file: str | None
    is_mirror: bool
    token_hosts: tuple[str, ...] = ()


class Network(NamedTuple):
    """Bounds of one request: attempts, seconds without a byte, seconds before the second one."""

    attempts: int = 5
    timeout: float = 60.0
    backoff: float = 0.25


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`document` is the parsed file, checked; it can be written as JSON and taken in again."""

    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Raises BadRequest, naming the file and the key, for what cannot be meant."""
        path = path or default_path()
        try:
            with open(path, "rb") as file:
                document = tomllib.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except tomllib.TOMLDecodeError as error:
            raise BadRequest(f"{path}", f"no TOML: {error}") from error
        except OSError as error:
            raise SandboxError.from_os(f"read {path}", error) from error
        _check(document, path)
        return cls(document)

    @property
    def network(self) -> Network:
        return Network(**self.document.get("network", {}))

    def impatient(self) -> Self:
        """The same, for somebody who waits for one short answer."""
        network = {**self.network._asdict(), "attempts": 2, "timeout": 15.0}
        return type(self)({**self.document, "network": network})

    def endpoints(self, domain: str) -> tuple[Endpoint, ...]:
        """Mirrors in their order, then the registry itself."""
        own = self.document.get("registry", {}).get(domain, {})
        plain = own.get("plain-http", is_loopback(domain))
        host = _HUB_SERVER if domain == HUB else domain
        tokens = tuple(own.get("token-hosts", ()))
        url = f"{'http' if plain else 'https'}://{host}"
        itself = Endpoint(url, domain, plain, own.get("ca-file"), False, tokens)
        return (*(self._mirror(each) for each in own.get("mirrors", ())), itself)

    def _mirror(self, url: str) -> Endpoint:
        host = urlsplit(url).netloc
        own = self.document.get("registry", {}).get(host, {})
        plain = url.startswith("http://")
        tokens = tuple(own.get("token-hosts", ()))
        return Endpoint(url.rstrip("/"), host, plain, own.get("ca-file"), True, tokens)


def default_path() -> Path:
    if path := os.environ.get("SANDBOX_REGISTRIES"):
        return Path(path)
    directory = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(directory) / "sandboxd" / "registries.toml"


def is_loopback(authority: str) -> bool:
    """Whether `HOST[:PORT]` is this machine by its very name: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(f"//{authority}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(document: dict[str, Any], path: Path) -> None:
    for section in document.keys() - {"network", "registry"}:
        raise BadRequest(f"{path}", f"unknown section [{section}]")
    _check_table(document.get("network", {}), _NETWORK_KEYS, f"{path}: [network]")
    registries = document.get("registry", {})
    if not isinstance(registries, dict):
        raise BadRequest(f"{path}", 'registry is no table; write [registry."HOST"]')
    for domain, own in registries.items():
        where = f'{path}: [registry."{domain}"]'
        _check_table(own, _KEYS, where)
        for mirror in own.get("mirrors", ()):
            _check_mirror(mirror, registries, where)
        if not all(isinstance(each, str) for each in own.get("token-hosts", ())):
            raise BadRequest(where, "token-hosts is no list of host names")


def _check_table(table: object, keys: Mapping[str, Any], where: str) -> None:
    if not isinstance(table, dict):
        raise BadRequest(where, "no table")
    for key, value in table.items():
        if key not in keys:
            raise BadRequest(where, f"unknown key {key}: known are {', '.join(keys)}")
        wrong_bool = isinstance(value, bool) and keys[key] is not bool
        if wrong_bool or not isinstance(value, keys[key]):
            raise BadRequest(where, f"{key} = {value!r} is of the wrong type")
        if keys is _NETWORK_KEYS and value < (0 if key == "backoff" else 1):
            raise BadRequest(where, f"{key} = {value!r} is too small")


def _check_mirror(url: object, registries: Mapping[str, Any], where: str) -> None:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadRequest(where, f"mirror {url!r} is no URL", "https://HOST[:PORT][/PATH]")
    own = registries.get(parts.netloc, {})
    if parts.scheme == "http" and not (is_loopback(parts.netloc) or own.get("plain-http")):
        mend = f'[registry."{parts.netloc}"] plain-http = true'
        raise BadRequest(where, f"mirror {url} is reached without TLS", mend)
