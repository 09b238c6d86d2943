"""The keys of an environment, and the services that its factors name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tox.config.sets import EnvConfigSet

_FACTOR: Final = re.compile(r"([a-z]+)(\d[\w.]*)")
_SERVICES: Final = {
    "pg": "postgres",
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
    "valkey": "valkey",
    "mysql": "mysql",
    "mariadb": "mariadb",
    "mongo": "mongo",
    "rabbitmq": "rabbitmq",
    "minio": "minio",
    "clickhouse": "clickhouse",
}
"""What a factor's letters stand for, where digits follow."""


class Settings(NamedTuple):
    """What an environment asks for."""

    image: str
    volumes: tuple[str, ...]
    network: bool
    services: Mapping[str, str]
    """Name of a service to its version."""


def register(conf: EnvConfigSet) -> None:
    """Add the keys to an environment's configuration."""
    conf.add_config(
        keys=["sandbox_image"],
        of_type=str,
        default="",
        desc="image whose Python and root the environment has (empty: this machine's own)",
    )
    conf.add_config(
        keys=["sandbox_volumes"],
        of_type=list[str],
        default=[],
        desc="more to mount: SOURCE:/PLACE[:ro|:rw|:O], SOURCE a path or the name of a volume",
    )
    conf.add_config(
        keys=["sandbox_network"],
        of_type=bool,
        default=False,
        desc="let the commands use this machine's network (else they have a loopback of their own)",
    )
    conf.add_config(
        keys=["sandbox_services"],
        of_type=list[str],
        default=[],
        desc="services that the tests start, NAME:VERSION; a factor such as pg17 stands for one",
    )


def settings(conf: EnvConfigSet, name: str, root: Path) -> Settings:
    """What the environment `name` asks for. Raises Fail for a value that makes no sense."""
    return Settings(
        str(conf["sandbox_image"]),
        tuple(_volume(text, root) for text in conf["sandbox_volumes"]),
        bool(conf["sandbox_network"]),
        {**of_factors(name), **_asked(conf["sandbox_services"])},
    )


def of_factors(name: str) -> dict[str, str]:
    """The services that the factors of an environment's name stand for: postgres 17 for pg17."""
    found = (_FACTOR.fullmatch(factor) for factor in name.split("-"))
    return {_SERVICES[each[1]]: each[2] for each in found if each and each[1] in _SERVICES}


def environment(name: str, services: Mapping[str, str]) -> dict[str, str]:
    """What tells a command of its environment's factors and services."""
    told = {f"SANDBOX_{_variable(service)}": version for service, version in services.items()}
    return {"SANDBOX_FACTORS": ",".join(name.split("-")), **told}


def _variable(service: str) -> str:
    return re.sub(r"\W", "_", service).upper()


def _asked(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.replace("==", ":").partition(":") for line in lines]
    for name, _, version in pairs:
        if not name.strip() or not version.strip():
            raise _fail(f"sandbox_services {name!r}: write it as NAME:VERSION, such as postgres:17")
    return {name.strip(): version.strip() for name, _, version in pairs}


def _volume(text: str, root: Path) -> str:
    source, colon, place = text.partition(":")
    if not colon or not place.startswith("/"):
        raise _fail(f"sandbox_volumes {text!r}: write it as SOURCE:/PLACE or SOURCE:/PLACE:ro")
    if source.startswith((".", "~")) or ("/" in source and not source.startswith("/")):
        source = str(root / os.path.expanduser(source))
    return f"{os.path.normpath(source) if '/' in source else source}:{place}"


def _fail(text: str) -> Exception:
    from tox.tox_env.errors import Fail

    return Fail(text)
