"""`RUN --mount=…`, parsed: https://docs.docker.com/reference/dockerfile/#run---mount."""

from __future__ import annotations

import csv
import posixpath
from dataclasses import dataclass
from typing import Final

from sandboxd.errors import BadRequest, CannotEnforce

_SECRETS: Final = "/run/secrets"
_KEYS: Final = {
    "bind": ("target", "source", "from", "ro", "rw"),
    "cache": ("id", "target", "source", "from", "ro", "rw", "sharing", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
    "secret": ("id", "target", "required", "mode", "uid", "gid", "env"),
}
_ALIASES: Final = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readonly": "ro",
    "readwrite": "rw",
}
_SWITCHES: Final = frozenset(("ro", "rw", "required"))


@dataclass(frozen=True, slots=True)
class BindMount:
    """A directory or file of the context (`origin` is empty), a stage or an image."""

    target: str
    source: str
    origin: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory that stays from build to build, filled from `origin` at first."""

    target: str
    id: str
    sharing: str
    readonly: bool
    source: str
    origin: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """`size` in bytes, 0 for no limit."""

    target: str
    size: int


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret as a file at `target`, in the variable `env`, or both; empty for what is not."""

    id: str
    target: str
    env: str
    required: bool
    mode: int
    uid: int
    gid: int


MountRequest = BindMount | CacheMount | TmpfsMount | SecretMount


def parse_mount(text: str, workdir: str) -> MountRequest:
    """The value of a --mount flag, variables expanded. Raises BadRequest."""
    options = _options(text)
    kind = options.pop("type", "bind")
    if kind == "ssh":
        raise CannotEnforce("--mount=type=ssh", "no agent is forwarded", "--mount=type=secret")
    if kind not in _KEYS:
        raise BadRequest(f"--mount={text}", f"unsupported mount type {kind!r}")
    for key in options:
        if key not in _KEYS[kind]:
            raise BadRequest(f"--mount={text}", f"unexpected key {key!r} for type {kind}")
    return _Reader(text, options, workdir).read(kind)


def _options(text: str) -> dict[str, str]:
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise BadRequest(f"--mount={text}", f"not a list of key=value: {error}") from error
    options = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if not equals and key not in _SWITCHES:
            raise BadRequest(f"--mount={text}", f"{field!r} is not key=value")
        options[key] = value if equals else "true"
    return options


class _Reader:
    def __init__(self, text: str, options: dict[str, str], workdir: str) -> None:
        self._text, self._options, self._workdir = text, options, workdir

    def read(self, kind: str) -> MountRequest:
        options = self._options
        match kind:
            case "bind":
                origin = options.get("from", "")
                source = options.get("source", "")
                return BindMount(self._target(), source, origin, self._readonly(True))
            case "cache":
                target = self._target()
                sharing = options.get("sharing", "shared")
                if sharing not in ("shared", "private", "locked"):
                    raise self._error(f"sharing is shared, private or locked, not {sharing!r}")
                return CacheMount(
                    target,
                    options.get("id") or target,
                    sharing,
                    self._readonly(False),
                    options.get("source", ""),
                    options.get("from", ""),
                    self._number("mode", 0o755, 8),
                    self._number("uid", 0),
                    self._number("gid", 0),
                )
            case "tmpfs":
                return TmpfsMount(self._target(), self._bytes())
            case _:
                return self._secret()

    def _secret(self) -> SecretMount:
        options = self._options
        target, env = options.get("target", ""), options.get("env", "")
        id = options.get("id") or posixpath.basename(target)
        if not id:
            raise self._error("a secret needs an id or a target")
        if not target and not env:
            target = f"{_SECRETS}/{posixpath.basename(id)}"
        return SecretMount(
            id,
            self._absolute(target) if target else "",
            env,
            self._switch("required"),
            self._number("mode", 0o400, 8),
            self._number("uid", 0),
            self._number("gid", 0),
        )

    def _target(self) -> str:
        target = self._options.get("target", "")
        if not target:
            raise self._error("target is missing")
        return self._absolute(target)

    def _absolute(self, path: str) -> str:
        plain = posixpath.normpath(posixpath.join("/", self._workdir, path))
        plain = f"/{plain.lstrip('/')}"
        if plain == "/" or "\0" in plain:
            raise self._error(f"the target {path!r} cannot be mounted on")
        return plain

    def _readonly(self, otherwise: bool) -> bool:
        if "rw" in self._options:
            return not self._switch("rw")
        return self._switch("ro") if "ro" in self._options else otherwise

    def _switch(self, key: str) -> bool:
        value = self._options.get(key, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise self._error(f"{key} is true or false, not {value!r}")
        return value in ("true", "1")

    def _number(self, key: str, otherwise: int, base: int = 10) -> int:
        value = self._options.get(key)
        if value is None:
            return otherwise
        try:
            number = int(value, base)
        except ValueError:
            number = -1
        if not 0 <= number < 1 << 32 or (base == 8 and number > 0o7777):
            raise self._error(f"{key}={value} is not a number that can be")
        return number

    def _bytes(self) -> int:
        value = self._options.get("size", "0").lower().removesuffix("b")
        factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(value[-1:], 1)
        digits = value if factor == 1 else value[:-1]
        if not digits.isdigit():
            raise self._error(f"size={self._options['size']} is not a size such as 64m")
        return int(digits) * factor

    def _error(self, why: str) -> BadRequest:
        return BadRequest(f"--mount={self._text}", why)
