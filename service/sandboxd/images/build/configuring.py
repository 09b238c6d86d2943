"""The instructions that touch an image's config alone.

https://github.com/opencontainers/image-spec/blob/main/config.md, and Docker's own fields
Healthcheck, OnBuild and Shell.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from sandboxd.errors import BadRequest
from sandboxd.images.build.expansion import Expansion
from sandboxd.images.build.instructions import (
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
)

Config = dict[str, Any]

_SHELL: Final = ("/bin/sh", "-c")
_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATIONS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def shell_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(config.get("Shell") or _SHELL)


def arguments_of(command: Command, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The words to execute: the exec form's own, or the shell's with the string after them."""
    return command.words if command.is_exec else (*shell_of(config), *command.words)


def environment_of(config: Mapping[str, Any]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


def work_directory(config: Mapping[str, Any], path: str) -> str:
    """`path` as seen from the config's working directory. Raises BadRequest when it is empty."""
    if not path:
        raise BadRequest("WORKDIR", "the path is empty after its variables were expanded")
    return _absolute(config, path)


def _absolute(config: Mapping[str, Any], path: str) -> str:
    plain = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))
    return f"/{plain.lstrip('/')}"


def configured(config: Config, instruction: Instruction, expansion: Expansion) -> Config:
    """A copy of an image's `config` object after one instruction.

    Raises BadRequest for values that cannot be, NotImplementedError for another instruction.
    """
    changed = dict(config)
    match instruction:
        case Env():
            # All see what was there before: ENV abc=bye def=$abc.
            pairs = [
                (expansion.word(key), expansion.word(value)) for key, value in instruction.pairs
            ]
            environment = {**environment_of(config), **dict(pairs)}
            changed["Env"] = [f"{key}={value}" for key, value in environment.items()]
        case Label():
            pairs = [
                (expansion.word(key), expansion.word(value)) for key, value in instruction.pairs
            ]
            changed["Labels"] = {**(config.get("Labels") or {}), **dict(pairs)}
        case Cmd():
            changed["Cmd"] = list(arguments_of(instruction.command, config))
            changed["ArgsEscaped"] = None
        case Entrypoint():
            changed["Entrypoint"] = list(arguments_of(instruction.command, config)) or None
        case User():
            changed["User"] = _filled("USER", expansion.word(instruction.user))
        case Stopsignal():
            changed["StopSignal"] = _filled("STOPSIGNAL", expansion.word(instruction.signal))
        case Shell():
            changed["Shell"] = list(instruction.words)
        case Onbuild():
            changed["OnBuild"] = [*(config.get("OnBuild") or []), instruction.trigger]
        case Volume():
            paths = [_filled("VOLUME", expansion.word(path)) for path in instruction.paths]
            changed["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
        case Expose():
            ports = [port for text in instruction.ports for port in expansion.words(text)]
            added: dict[str, Any] = {port: {} for text in ports for port in _ports(text)}
            changed["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **added}
        case Healthcheck():
            changed["Healthcheck"] = _healthcheck(instruction)
        case _:
            raise NotImplementedError(type(instruction).__name__)
    return {key: value for key, value in changed.items() if value is not None}


def _filled(keyword: str, value: str) -> str:
    if not value:
        raise BadRequest(keyword, "the value is empty after its variables were expanded")
    return value


def _ports(text: str) -> list[str]:
    match = _PORT.fullmatch(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if match is None or not 0 < first <= last < 1 << 16:
        raise BadRequest(f"invalid containerPort: {text}")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _healthcheck(instruction: Healthcheck) -> dict[str, Any]:
    if instruction.command is None:
        return {"Test": ["NONE"]}
    kind = "CMD" if instruction.command.is_exec else "CMD-SHELL"
    check: dict[str, Any] = {"Test": [kind, *instruction.command.words]}
    check |= {_DURATIONS[name]: value for name, value in instruction.durations.items()}
    if instruction.retries:
        check["Retries"] = instruction.retries
    return check


def shown(arguments: tuple[str, ...]) -> str:
    """A command as `docker history` shows it."""
    if len(arguments) == 3 and arguments[:2] == _SHELL:
        return " ".join(arguments)
    return shlex.join(arguments)
