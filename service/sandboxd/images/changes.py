"""The instructions of `docker import --change`: what a Dockerfile can say about the config."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any, Final

from sandboxd.errors import BadRequest

Config = dict[str, Any]


def apply_changes(config: Config, changes: list[str]) -> Config:
    """A copy of an image's `config` object with `changes` applied in order.

    Raises BadRequest for an instruction that is unknown or malformed.
    """
    changed = dict(config)
    for line in changes:
        instruction, _, rest = line.strip().partition(" ")
        act = _INSTRUCTIONS.get(instruction.upper())
        if act is None:
            raise BadRequest(f"{instruction.upper()} is not a valid change command")
        if not rest.strip():
            raise BadRequest(f"{instruction.upper()} requires at least one argument")
        act(changed, rest.strip())
    return changed


def _command(key: str) -> Callable[[Config, str], None]:
    def act(config: Config, rest: str) -> None:
        config[key] = _words(rest) or ["/bin/sh", "-c", rest]

    return act


def _words(rest: str) -> list[str] | None:
    """The JSON form of a command, None for the shell form."""
    try:
        words = json.loads(rest)
    except ValueError:
        return None
    is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return words if is_list else None


def _text(key: str) -> Callable[[Config, str], None]:
    def act(config: Config, rest: str) -> None:
        config[key] = rest

    return act


def _pairs(rest: str, instruction: str) -> list[tuple[str, str]]:
    """`K=V K2="v 2"`, or the old form `K the rest`."""
    first = rest.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise BadRequest(f"{instruction} must have two arguments")
        return [(first[0], first[1])]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BadRequest(f"{instruction} {rest!r}", str(error)) from error
    pairs = [word.partition("=") for word in words]
    if any(not key or not equals for key, equals, _ in pairs):
        raise BadRequest(f"{instruction} {rest!r}", "expected KEY=VALUE")
    return [(key, value) for key, _, value in pairs]


def _env(config: Config, rest: str) -> None:
    kept = list(config.get("Env") or [])
    for key, value in _pairs(rest, "ENV"):
        kept = [entry for entry in kept if entry.partition("=")[0] != key] + [f"{key}={value}"]
    config["Env"] = kept


def _label(config: Config, rest: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(rest, "LABEL"))}


def _expose(config: Config, rest: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in rest.split():
        if not re.fullmatch(r"[0-9]{1,5}(/(tcp|udp|sctp))?", word):
            raise BadRequest(f"invalid containerPort: {word}")
        ports[word if "/" in word else f"{word}/tcp"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, rest: str) -> None:
    paths = _words(rest) or rest.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _onbuild(config: Config, rest: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


def _workdir(config: Config, rest: str) -> None:
    base = "" if rest.startswith("/") else config.get("WorkingDir") or "/"
    config["WorkingDir"] = f"{base.rstrip('/')}/{rest.lstrip('/')}"


_INSTRUCTIONS: Final[dict[str, Callable[[Config, str], None]]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
